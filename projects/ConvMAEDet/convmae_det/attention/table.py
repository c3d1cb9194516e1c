"""Attention with tables of relative position biases, without keeping the N×N matrix.

A table (Swin, arXiv:2103.14030, eq. 4) has one bias for each offset of query and key and each head. Unlike decomposed
relative positions the biases are no product of few vectors, so that they cannot be folded into the heads: they have to
be laid out as N×N logits. Here that happens a few heads or rows at a time, in the forward pass and once more in the
backward pass, and nothing is kept in between but queries, keys and values.

What else was tried, forward + backward in seconds and saved activations in MB, for 12 heads of 64 channels, float32, 2
x86 cores (one grid of 48×48 tokens; 16 windows of 16×16):

    plain, the N×N matrix kept                          2.07, 319;  0.16, 89
    scaled_dot_product_attention, bias as attn_mask     1.90, 319;  0.20, 89
    the same by rows, each recomputed for its gradient  4.18,  22;  0.27, 38
    here                                                1.37,  22;  0.20, 38

Without gradients it takes 0.34 s against 0.81, 0.50 and 0.32 (grid). GPUs were not measured.
"""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from timm.layers import gen_relative_position_index, resize_rel_pos_bias_table_simple
from torch import nn
from torch.autograd.function import once_differentiable

from convmae_det.attention.softmax import softmax_backward_
from pretrain.common.errors import UserError
from pretrain.models.recompute import norm_linear

__all__ = ["RelPosBiasTable", "TableAttention", "table_attention"]

# Logits in a piece. On a CPU they should stay in the cache between the products and the softmax; other devices want
# large products, and then this bounds the memory.
CPU_CHUNK, CHUNK = 2**20, 2**26
INDEX = "relative_position_index"


class RelPosBiasTable(nn.Module):
    """A bias for each offset of query and key and each head, with Swin's order of the offsets.

    Published files also hold the table's index for every pair, `relative_position_index` `(S * S, S * S)`. It follows
    from the size, so that no memory is spent on it here; :meth:`state_dict` has it, and loading checks its shape.

    Args:
        size: side S of the grid, or the window, that the table is for.
        num_heads: attention heads.
    """

    def __init__(self, size: int, num_heads: int):
        super().__init__()
        self.size = size
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, height: int, width: int) -> torch.Tensor:
        """The table for a grid, resized bicubically if it is of another size: `(heads, 2 * height - 1, 2 * width - 1)`.

        Entry `[h, H - 1 + dy, W - 1 + dx]` is for queries dy rows below and dx columns right of their keys.
        """
        side = 2 * self.size - 1
        table = rearrange(self.relative_position_bias_table, "(dy dx) heads -> heads dy dx", dy=side)
        shape = (table.shape[0], 2 * height - 1, 2 * width - 1)
        return resize_rel_pos_bias_table_simple(table, (height, width), shape)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Not on a GPU: for a 48×48 grid it holds 42 MB, and three times that while it is made.
        destination[prefix + INDEX] = gen_relative_position_index((self.size, self.size), device="cpu")

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        name, pairs = prefix + INDEX, self.size**2
        if name not in state_dict:
            missing_keys.append(name)
            return
        if name in unexpected_keys:
            unexpected_keys.remove(name)
        if state_dict[name].shape != (pairs, pairs):
            shape = tuple(state_dict[name].shape)
            error_msgs.append(f"size mismatch for {name}: {shape} in the file, {(pairs, pairs)} in the model.")


class TableAttention(nn.Module):
    """Multi-head self-attention over a grid `(B, H, W, C)`, all of it or in windows, with a table of biases.

    Args:
        dim: channels.
        num_heads: attention heads; divides `dim`.
        table: the biases; several blocks may share one, so it is not a submodule of theirs.
        window_size: side of the windows in tokens, 0 for global attention. The grid is padded at the bottom and right
            to whole windows; the padding takes part as keys.

    Raises:
        UserError: `dim` is not divisible by `num_heads`.
    """

    def __init__(self, dim: int, num_heads: int, table: RelPosBiasTable, qkv_bias: bool = True, window_size: int = 0):
        super().__init__()
        if dim % num_heads:
            raise UserError(f"embed_dim {dim} is not divisible by num_heads {num_heads}.")
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self._shared_table = (table,)  # in a tuple: PyTorch does not register it here as well

    def forward(self, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        """Attention over `norm(x)`, x `(B, H, W, C)`; the pre-norm is fused into the projection."""
        B, H, W, _ = x.shape
        h, w = (self.window_size, self.window_size) if self.window_size else (H, W)
        qkv = norm_linear(x, norm, self.qkv)
        if H % h or W % w:
            qkv = self._pad(qkv, -H % h, -W % w)
        q, k, v = rearrange(
            qkv,
            "b (nh h) (nw w) (three heads d) -> three (b nh nw) heads (h w) d",
            h=h,
            w=w,
            three=3,
            heads=self.num_heads,
        )
        out = table_attention(q, k, v, self._shared_table[0](h, w))
        out = rearrange(out, "(b nh nw) heads (h w) d -> b (nh h) (nw w) (heads d)", b=B, nw=-(-W // w), h=h)
        return self.proj(out[:, :H, :W])

    def _pad(self, qkv: torch.Tensor, bottom: int, right: int) -> torch.Tensor:
        """Grows the grid by tokens that are zero *before* the projection: they hold its bias alone."""
        B, H, W, C = qkv.shape
        fill = qkv.new_zeros(C) if self.qkv.bias is None else self.qkv.bias.to(qkv.dtype)
        padded = fill.expand(B, H + bottom, W + right, C).clone()
        padded[:, :H, :W] = qkv
        return padded


def table_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Attention within each of M grids of H×W tokens, rows first.

    Args:
        q, k, v: `(M, heads, H * W, d)`.
        table: biases `(heads, 2 * H - 1, 2 * W - 1)`, see :meth:`RelPosBiasTable.forward`.

    Returns:
        `(M, heads, H * W, d)`.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # they know operators, not autograd functions of ours
        bias = _bias(table, slice(0, (table.shape[1] + 1) // 2)).to(q.dtype)
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return _TableAttention.apply(q, k, v, table)


class _TableAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(q, k, v, table)
        with torch.autocast(q.device.type, enabled=False):
            out = torch.empty_like(v, memory_format=torch.contiguous_format)
            for place, _, p in _probabilities(q, k, table):
                out[place] = (p @ v[place[:2]].flatten(0, 1)).view(out[place].shape)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v, table = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        grad_q, grad_k, grad_v = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
        grad_table = torch.zeros_like(table)
        with torch.autocast(q.device.type, enabled=False):
            for place, rows, p in _probabilities(q, k, table):
                grids, heads, _ = place
                whole = (grids, heads)
                grad_out = grad[place].flatten(0, 1)
                grad_v[whole] += (p.mT @ grad_out).view(v[whole].shape)
                grad_p = grad_out @ v[whole].flatten(0, 1).mT
                # dL/dlogits
                s = softmax_backward_(grad_p, p)
                grad_k[whole] += (s.mT @ q[place].flatten(0, 1)).view(k[whole].shape) * scale
                grad_q[place] = (s @ k[whole].flatten(0, 1)).view(q[place].shape) * scale
                M = q[whole].shape[0]
                _add_to_table(grad_table[heads], s.view(M, -1, *s.shape[1:]).sum(0, dtype=table.dtype), rows)
        return grad_q, grad_k, grad_v, grad_table


def _probabilities(
    q: torch.Tensor, k: torch.Tensor, table: torch.Tensor
) -> Iterator[tuple[tuple[slice, slice, slice], slice, torch.Tensor]]:
    """Softmax of the logits, a piece at a time.

    Yields:
        which grids, heads and queries these are; the queries' rows of the grid; and their probabilities
        `(grids * heads, queries, H * W)`.
    """
    (M, num_heads, N, d), (H, W) = q.shape, ((side + 1) // 2 for side in table.shape[1:])
    chunk = CPU_CHUNK if q.device.type == "cpu" else CHUNK
    heads, rows = min(num_heads, max(1, chunk // N**2)), min(H, max(1, chunk // (W * N)))
    grids = min(M, max(1, chunk // (heads * rows * W * N)))
    for head in _slices(num_heads, heads):
        for row in _slices(H, rows):
            bias = _bias(table[head], row).to(q.dtype)
            query = slice(row.start * W, row.stop * W)
            for grid in _slices(M, grids):
                queries, keys = q[grid, head, query], k[grid, head]
                s = bias.repeat(queries.shape[0], 1, 1)
                s.baddbmm_(queries.flatten(0, 1), keys.flatten(0, 1).mT, alpha=d**-0.5)
                yield (grid, head, query), row, torch.softmax(s, -1, out=s)


def _slices(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _bias(table: torch.Tensor, rows: slice) -> torch.Tensor:
    """The biases of queries in some rows of the grid and all keys: `(heads, rows * W, H * W)`."""
    H, W = ((side + 1) // 2 for side in table.shape[1:])
    # Turned round, the biases of a query lie as its keys do: a window of the table that moves against the query.
    windows = table.flip(1, 2).unfold(1, H, 1).unfold(2, W, 1)
    windows = windows[:, H - rows.stop : H - rows.start].flip(1, 2)
    return rearrange(windows, "heads qy qx ky kx -> heads (qy qx) (ky kx)")


def _add_to_table(table: torch.Tensor, grad: torch.Tensor, rows: slice) -> None:
    """Adds gradients of :func:`_bias` `(heads, rows * W, H * W)` to those of the table `(heads, 2H - 1, 2W - 1)`."""
    H, W = ((side + 1) // 2 for side in table.shape[1:])
    grad = rearrange(grad, "heads (qy qx) (ky kx) -> heads qy ky qx kx", qx=W, kx=W)
    # Rows of 2 W entries read as rows of 2 W - 1 move on by one each, so that equal offsets qx - kx come in one column.
    grad = nn.functional.pad(grad.flip(-1), (0, W)).flatten(-2)[..., : W * (2 * W - 1)]
    grad = grad.unflatten(-1, (W, 2 * W - 1)).sum(-2)
    for i, qy in enumerate(range(rows.start, rows.stop)):
        table[:, qy : qy + H] += grad[:, i].flip(1)
