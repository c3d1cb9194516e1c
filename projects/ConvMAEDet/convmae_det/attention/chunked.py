"""Attention with decomposed relative positions on a CPU: the logits of a few heads or rows at a time.

A CPU has no fused kernel that adds a bias to the logits and differentiates it. Here the logits are computed in pieces,
the bias is where they start from, and the backward pass computes them once more: nothing is kept between the two passes
but the projected tokens, and windows are cut out of the grid, and padded, one at a time.
"""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch.autograd.function import once_differentiable

from convmae_det.attention.softmax import softmax_backward_

__all__ = ["chunked_attention"]

# Logits in a piece. Forward and backward of ConvMAE-B's backbone at 512 pixels on two cores took 5.9 s with 2**22 and
# 6.5 s with 2**20; 7.2 s folded and 7.2 s as published, in the same run.
CHUNK = 2**22


def chunked_attention(
    qkv: torch.Tensor,
    pad: torch.Tensor | None,
    rel_pos_h: torch.Tensor,
    rel_pos_w: torch.Tensor,
    num_heads: int,
    window: tuple[int, int],
) -> torch.Tensor:
    """As :func:`convmae_det.attention.folded.folded_attention`, with relative positions."""
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

    def whole(self, part: torch.Tensor, fill: torch.Tensor | None) -> torch.Tensor:
        """A whole window `(h, w, C)` from what the grid has of it; the rest holds `fill`, or zeros."""
        if part.shape[:2] == self.window:
            return part
        whole = part.new_zeros(*self.window, part.shape[-1])
        if fill is not None:
            whole += fill
        whole[: part.shape[0], : part.shape[1]] = part
        return whole


class _ChunkedAttention(torch.autograd.Function):
    # The padding takes part as keys and values only: what its queries would attend to is cut off.

    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        pad: torch.Tensor | None,
        rel_pos_h: torch.Tensor,
        rel_pos_w: torch.Tensor,
        num_heads: int,
        window: tuple[int, int],
    ) -> torch.Tensor:
        ctx.save_for_backward(qkv, pad, rel_pos_h, rel_pos_w)
        ctx.num_heads, ctx.window = num_heads, window
        windows = _Windows(qkv, window)
        out = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
        for place in windows:
            q, k, v = _queries_keys_values(qkv[place], windows, pad, num_heads)
            attended = torch.empty_like(q)
            for chunk, p in _probabilities(q, k, rel_pos_h, rel_pos_w):
                torch.bmm(p, v[chunk[0]], out=attended[chunk].flatten(1, 2))
            out[place] = _grid(attended)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        qkv, pad, rel_pos_h, rel_pos_w = ctx.saved_tensors
        windows, C = _Windows(qkv, ctx.window), grad.shape[-1]
        grad_qkv = torch.empty_like(qkv)
        grad_pad = None if pad is None else torch.zeros_like(pad)
        grad_h, grad_w = torch.zeros_like(rel_pos_h), torch.zeros_like(rel_pos_w)
        for place in windows:
            q, k, v = _queries_keys_values(qkv[place], windows, pad, ctx.num_heads)
            grad_out = _heads(grad[place], ctx.num_heads)
            grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
            bias_h, bias_w = (q.new_empty(*q.shape[:3], n) for n in ctx.window)  # gradients of the biases
            scale, buffer = q.shape[-1] ** -0.5, None
            for chunk, p in _probabilities(q, k, rel_pos_h, rel_pos_w):
                heads, rows = chunk
                beta = float(rows.start > 0)  # the first rows of a head overwrite what the others add to
                g = grad_out[chunk].flatten(1, 2)
                grad_v[heads].baddbmm_(p.transpose(1, 2), g, beta=beta)
                # dL/dp, then dL/dlogits in its place
                buffer = torch.empty_like(p) if buffer is None else buffer
                s = buffer.flatten()[: p.numel()].view(p.shape)
                torch.bmm(g, v[heads].transpose(1, 2), out=s)
                softmax_backward_(s, p)
                grad_k[heads].baddbmm_(s.transpose(1, 2), q[chunk].flatten(1, 2), beta=beta, alpha=scale)
                grad_q[chunk].flatten(1, 2).baddbmm_(s, k[heads], beta=0, alpha=scale)
                s = s.view(*q[chunk].shape[:3], *ctx.window)
                torch.sum(s, -1, out=bias_h[chunk])
                torch.sum(s, -2, out=bias_w[chunk])
            h, w = q.shape[1:3]
            grad_q += torch.einsum("nhwk,hkd->nhwd", bias_h, rel_pos_h[:h])
            grad_q += torch.einsum("nhwk,wkd->nhwd", bias_w, rel_pos_w[:w])
            grad_h[:h] += torch.einsum("nhwk,nhwd->hkd", bias_h, q)
            grad_w[:w] += torch.einsum("nhwk,nhwd->wkd", bias_w, q)
            grad_part = grad_qkv[place]
            grad_part[..., :C] = _grid(grad_q)
            for i, whole in enumerate((grad_k, grad_v), start=1):
                whole = _grid(whole.unflatten(1, ctx.window))
                grad_part[..., i * C : (i + 1) * C] = whole[:h, :w]
                if grad_pad is not None and (h, w) != ctx.window:
                    grad_pad[i * C : (i + 1) * C] += whole[h:].sum((0, 1)) + whole[:h, w:].sum((0, 1))
        return grad_qkv, grad_pad, grad_h, grad_w, None, None


def _queries_keys_values(
    part: torch.Tensor, windows: _Windows, pad: torch.Tensor | None, num_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries `(heads, h, w, d)` of a window's part of the grid; keys and values `(heads, N, d)` of all of it."""
    C = part.shape[-1] // 3
    keys_values = windows.whole(part[..., C:], None if pad is None else pad[C:])
    k, v = _heads(keys_values, 2 * num_heads).flatten(1, 2).chunk(2)
    return _heads(part[..., :C], num_heads), k, v


def _heads(grid: torch.Tensor, heads: int) -> torch.Tensor:
    """(h, w, heads * d) -> (heads, h, w, d), contiguous."""
    return rearrange(grid, "h w (heads d) -> heads h w d", heads=heads).contiguous()


def _grid(heads: torch.Tensor) -> torch.Tensor:
    """(heads, h, w, d) -> (h, w, heads * d)"""
    return rearrange(heads, "heads h w d -> h w (heads d)")


def _probabilities(
    q: torch.Tensor, k: torch.Tensor, rel_pos_h: torch.Tensor, rel_pos_w: torch.Tensor
) -> Iterator[tuple[tuple[slice, slice], torch.Tensor]]:
    """Softmax of the logits, a chunk at a time: several heads whole, or some rows of one head.

    Args:
        q: queries `(heads, h, w, d)`.
        k: keys `(heads, N, d)`.

    Yields:
        which heads and rows of queries these are, and their probabilities `(heads, queries, N)`, which the next ones
        overwrite. The first chunk is the largest.
    """
    num_heads, h, w, d = q.shape
    N, window = k.shape[1], (len(rel_pos_h[0]), len(rel_pos_w[0]))
    bias_h = torch.einsum("nhwd,hkd->nhwk", q, rel_pos_h[:h])
    bias_w = torch.einsum("nhwd,wkd->nhwk", q, rel_pos_w[:w])
    heads, rows = min(num_heads, max(1, CHUNK // (h * w * N))), min(h, max(1, CHUNK // (w * N)))
    buffer = q.new_empty(heads * rows * w * N)
    for i in range(0, num_heads, heads):
        for y in range(0, h, rows):
            chunk = slice(i, min(i + heads, num_heads)), slice(y, min(y + rows, h))
            queries = q[chunk].flatten(1, 2)
            s = buffer[: queries.shape[0] * queries.shape[1] * N].view(*q[chunk].shape[:3], *window)
            torch.add(bias_h[chunk][..., None], bias_w[chunk][..., None, :], out=s)
            s = s.view(*queries.shape[:2], N)
            s.baddbmm_(queries, k[chunk[0]].transpose(1, 2), alpha=d**-0.5)
            yield chunk, torch.softmax(s, -1, out=s)
