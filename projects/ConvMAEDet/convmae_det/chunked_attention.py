"""Attention with decomposed relative positions on a CPU: the logits of a few heads or rows at a time.

A CPU has no fused kernel that adds a bias to the logits and differentiates it. Here the logits are computed in pieces
that stay in the cache, the bias is where they start from, and the backward pass computes them once more: nothing is
kept between the two passes but the projected tokens, and windows are cut out of the grid, and padded, one at a time.
"""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch.autograd.function import once_differentiable

__all__ = ["chunked_attention"]

# Logits in a piece. On two cores with 2 MB of cache each, ConvMAE-B at 512 and 1024 pixels is fastest with 2**20.
CHUNK = 2**20


def chunked_attention(
    qkv: torch.Tensor,
    pad: torch.Tensor | None,
    rel_pos_h: torch.Tensor,
    rel_pos_w: torch.Tensor,
    num_heads: int,
    window: tuple[int, int],
) -> torch.Tensor:
    """As :func:`convmae_det.folded_attention.folded_attention`, with relative positions."""
    return _ChunkedAttention.apply(qkv, pad, rel_pos_h, rel_pos_w, num_heads, window)


class _Windows:
    """The windows of a grid `(B, H, W, ...)`, those at its lower and right edge cut off by it."""

    def __init__(self, grid: torch.Tensor, window: tuple[int, int]):
        self.shape, self.window = grid.shape[:3], window

    def __iter__(self) -> Iterator[tuple[int, slice, slice]]:
        B, H, W = self.shape
        h, w = self.window
        for b in range(B):
            for y in range(0, H, h):
                for x in range(0, W, w):
                    yield b, slice(y, min(y + h, H)), slice(x, min(x + w, W))

    def cut(self, grid: torch.Tensor, place: tuple, fill: torch.Tensor | None = None) -> torch.Tensor:
        """A window `(h, w, C)` of a grid `(B, H, W, C)`; what lies outside holds `fill`, or zeros."""
        part = grid[place]
        if part.shape[:2] == self.window:
            return part
        whole = grid.new_zeros(*self.window, grid.shape[-1])
        if fill is not None:
            whole += fill
        whole[: part.shape[0], : part.shape[1]] = part
        return whole


class _ChunkedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, pad, rel_pos_h, rel_pos_w, num_heads, window):
        ctx.save_for_backward(qkv, pad, rel_pos_h, rel_pos_w)
        ctx.num_heads, ctx.window = num_heads, window
        windows = _Windows(qkv, window)
        out = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
        for place in windows:
            q, k, v = _heads(windows.cut(qkv, place, pad), 3 * num_heads).chunk(3)
            attended = torch.empty_like(v)
            for chunk, p in _probabilities(q, k, rel_pos_h, rel_pos_w, window):
                torch.bmm(p, v[chunk[0]], out=attended[chunk])
            part = out[place]
            part.copy_(_grid(attended, window)[: part.shape[0], : part.shape[1]])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, pad, rel_pos_h, rel_pos_w = ctx.saved_tensors
        windows, (h, w) = _Windows(qkv, ctx.window), ctx.window
        grad_qkv = torch.empty_like(qkv)
        grad_pad = None if pad is None else torch.zeros_like(pad)
        grad_h, grad_w = torch.zeros_like(rel_pos_h), torch.zeros_like(rel_pos_w)
        heads_in_chunk, rows_in_chunk = _chunk_size(ctx.num_heads, ctx.window)
        for place in windows:
            tokens = _heads(windows.cut(qkv, place, pad), 3 * ctx.num_heads)
            q, k, v = tokens.chunk(3)
            grad_tokens = torch.zeros_like(tokens)
            grad_q, grad_k, grad_v = grad_tokens.chunk(3)
            grad_out = _heads(windows.cut(grad, place), ctx.num_heads)
            buffer = q.new_empty(heads_in_chunk * rows_in_chunk * w * h * w)
            grad_bias_h, grad_bias_w = (q.new_empty(*q.shape[:2], n) for n in (h, w))
            for chunk, p in _probabilities(q, k, rel_pos_h, rel_pos_w, ctx.window):
                heads, scale = chunk[0], q.shape[-1] ** -0.5
                grad_v[heads].baddbmm_(p.transpose(1, 2), grad_out[chunk])
                # dL/dp, then dL/dlogits in its place
                s = torch.bmm(grad_out[chunk], v[heads].transpose(1, 2), out=buffer[: p.numel()].view(p.shape))
                torch.ops.aten._softmax_backward_data.out(s, p, -1, p.dtype, grad_input=s)
                grad_k[heads].baddbmm_(s.transpose(1, 2), q[chunk], alpha=scale)
                grad_q[chunk].baddbmm_(s, k[heads], alpha=scale)
                s = s.unflatten(-1, ctx.window)
                torch.sum(s, -1, out=grad_bias_h[chunk])
                torch.sum(s, -2, out=grad_bias_w[chunk])
            q, grad_q, grad_bias_h, grad_bias_w = (
                t.unflatten(1, ctx.window) for t in (q, grad_q, grad_bias_h, grad_bias_w)
            )
            grad_q += torch.einsum("nhwk,hkd->nhwd", grad_bias_h, rel_pos_h)
            grad_q += torch.einsum("nhwk,wkd->nhwd", grad_bias_w, rel_pos_w)
            grad_h += torch.einsum("nhwk,nhwd->hkd", grad_bias_h, q)
            grad_w += torch.einsum("nhwk,nhwd->wkd", grad_bias_w, q)
            part, whole = grad_qkv[place], _grid(grad_tokens, ctx.window)
            part.copy_(whole[: part.shape[0], : part.shape[1]])
            if grad_pad is not None and part.shape[:2] != ctx.window:
                grad_pad += whole.sum((0, 1)) - part.sum((0, 1))
        return grad_qkv, grad_pad, grad_h, grad_w, None, None


def _heads(window: torch.Tensor, heads: int) -> torch.Tensor:
    """(h, w, heads * d) -> (heads, h * w, d), contiguous."""
    return rearrange(window, "h w (heads d) -> heads (h w) d", heads=heads).contiguous()


def _grid(heads: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """(heads, h * w, d) -> (h, w, heads * d)"""
    return rearrange(heads, "heads (h w) d -> h w (heads d)", h=window[0])


def _chunk_size(num_heads: int, window: tuple[int, int]) -> tuple[int, int]:
    """Heads and rows of queries in a chunk: several heads whole, or some rows of one head."""
    h, w = window
    return min(num_heads, max(1, CHUNK // (h * w) ** 2)), min(h, max(1, CHUNK // (w * h * w)))


def _probabilities(
    q: torch.Tensor, k: torch.Tensor, rel_pos_h: torch.Tensor, rel_pos_w: torch.Tensor, window: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], torch.Tensor]]:
    """Softmax of the logits, a chunk at a time.

    Args:
        q, k: queries and keys of a window, `(heads, N, d)`.

    Yields:
        which heads and queries these are, and their probabilities `(heads, queries, N)`; the next ones overwrite them.
    """
    h, w = window
    num_heads, N, d = q.shape
    grid = q.unflatten(1, window)
    bias_h = torch.einsum("nhwd,hkd->nhwk", grid, rel_pos_h)
    bias_w = torch.einsum("nhwd,wkd->nhwk", grid, rel_pos_w)
    heads, rows = _chunk_size(num_heads, window)
    buffer = q.new_empty(heads * rows * w * N)
    for i in range(0, num_heads, heads):
        head = slice(i, min(i + heads, num_heads))
        for y in range(0, h, rows):
            row = slice(y, min(y + rows, h))
            query = slice(row.start * w, row.stop * w)
            n, r = head.stop - head.start, row.stop - row.start
            s = buffer[: n * r * w * N]
            torch.add(bias_h[head, row, ..., None], bias_w[head, row, :, None], out=s.view(n, r, w, h, w))
            s = s.view(n, r * w, N)
            s.baddbmm_(q[head, query], k[head].transpose(1, 2), alpha=d**-0.5)
            yield (head, query), torch.softmax(s, -1, out=s)
