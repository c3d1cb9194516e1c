"""Windowed and global attention with decomposed relative positions, without the N×N matrix.

Decomposed relative positions (MViTv2, arXiv:2112.01526, eq. 4; ViTDet, arXiv:2203.16527) add
`q·Rh[qy, ky] + q·Rw[qx, kx]` to the logits. With `eh = q·Rh` (N × H) and `ew = q·Rw` (N × W),

    q·k·scale + bias  =  [q·scale, eh, ew] · [k, onehot(ky), onehot(kx)],

so the sum is plain scaled dot-product attention with a head dimension of `d + H + W`, exact to rounding.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from pretrain.fused import norm_linear

__all__ = ["RelPosAttention", "relative_positions"]


def relative_positions(size: int, table: torch.Tensor) -> torch.Tensor:
    """The table's row for every pair of positions along one axis of the grid.

    The same numbers as detectron2's `get_rel_pos` for queries and keys on one grid, which cannot be exported for
    varying sizes: there a table of the right length is a case of its own. Resizing it to its own length changes
    nothing, so an export with symbolic sizes always resizes.

    Args:
        size: positions along the axis.
        table: `(2 * L - 1, d)`, from the largest negative distance to the largest positive; resized linearly.

    Returns:
        `(size, size, d)`, entry `[q, k]` for the distance `q - k`.
    """
    if isinstance(size, torch.SymInt) or table.shape[0] != 2 * size - 1:
        # (2L-1, d) -> (1, d, 2L-1) -> (2 * size - 1, d)
        table = F.interpolate(table.t()[None], size=2 * size - 1, mode="linear")[0].t()
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position + size - 1]


def _crop(x: torch.Tensor, H: int, W: int) -> torch.Tensor:
    """The upper left H × W of a grid `(B, H', W', C)`."""
    if isinstance(H, torch.SymInt):  # whether a slice is the whole is a case of its own, which an export cannot decide
        return x.index_select(1, torch.arange(H, device=x.device)).index_select(2, torch.arange(W, device=x.device))
    return x[:, :H, :W]


class RelPosAttention(nn.Module):
    """Multi-head self-attention over a grid `(B, H, W, C)`, all of it or in windows.

    Args:
        dim: channels.
        num_heads: attention heads; divides `dim`.
        use_rel_pos: add decomposed relative positions.
        rel_pos_zero_init: initialise them to zero instead of a truncated normal of std 0.02.
        input_size: grid `(H, W)` whose relative positions are stored; other grids use a linear resize of them.
        window_size: side of the windows in tokens, 0 for global attention. The grid is padded at the bottom and right
            to whole windows; as in ViTDet the padding takes part as keys.

    Raises:
        ValueError: `dim` is not divisible by `num_heads`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
        window_size: int = 0,
    ):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim {dim} is not divisible by num_heads {num_heads}.")
        head_dim = dim // num_heads
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.window_size = window_size
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            height, width = (window_size, window_size) if window_size else input_size
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, head_dim))
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        """Attention over `norm(x)`, x `(B, H, W, C)`; the pre-norm is fused into the projection."""
        B, H, W, _ = x.shape
        qkv = norm_linear(x, norm, self.qkv)
        window_h, window_w = (self.window_size, self.window_size) if self.window_size else (H, W)
        rows, columns = 1, 1
        if self.window_size:  # ONNX rounds quotients towards zero: ceil(H / h) must not be written -(-H // h)
            rows, columns = (H + window_h - 1) // window_h, (W + window_w - 1) // window_w
        # An export with symbolic sizes always pads: whether it is needed is known only when the exported model runs.
        if self.window_size and (isinstance(H, torch.SymInt) or H % window_h or W % window_w):
            qkv = self._pad(qkv, rows * window_h, columns * window_w)
        q, k, v = rearrange(
            qkv,
            "b (nh wh) (nw ww) (three heads d) -> three (b nh nw) heads wh ww d",
            nh=rows,
            wh=window_h,
            nw=columns,
            ww=window_w,
            three=3,
            heads=self.num_heads,
        )
        out = self._attend(q, k, v, window_h, window_w)
        out = rearrange(
            out,
            "(b nh nw) heads (wh ww) d -> b (nh wh) (nw ww) (heads d)",
            b=B,
            nh=rows,
            nw=columns,
            wh=window_h,
        )
        return self.proj(_crop(out, H, W))

    def _pad(self, qkv: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Grows the grid by tokens that are zero *before* the projection: they hold its bias alone."""
        B, H, W, C = qkv.shape
        fill = qkv.new_zeros(C) if self.qkv.bias is None else self.qkv.bias.to(qkv.dtype)
        if isinstance(H, torch.SymInt):  # concatenating nothing is a case of its own, which an export cannot decide
            row, column = (torch.arange(n, device=qkv.device) for n in (height, width))
            outside = (row >= H)[:, None, None] | (column >= W)[:, None]
            return torch.where(outside, fill, F.pad(qkv, (0, 0, 0, width - W, 0, height - H)))
        qkv = torch.cat([qkv, fill.expand(B, H, width - W, C)], dim=2)
        return torch.cat([qkv, fill.expand(B, height - H, width, C)], dim=1)

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, H: int, W: int) -> torch.Tensor:
        """Attention within each grid: q, k, v `(B, heads, H, W, d)` to `(B, heads, H * W, d)`."""
        if not self.use_rel_pos:
            q, k, v = (t.flatten(2, 3) for t in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        d = q.shape[-1]
        rel_pos_h = relative_positions(H, self.rel_pos_h).to(q)
        rel_pos_w = relative_positions(W, self.rel_pos_w).to(q)
        bias_h = torch.einsum("bnhwd,hkd->bnhwk", q, rel_pos_h)
        bias_w = torch.einsum("bnhwd,wkd->bnhwk", q, rel_pos_w)
        onehot_h = torch.eye(H, dtype=q.dtype, device=q.device)[:, None].expand(H, W, H)
        onehot_w = torch.eye(W, dtype=q.dtype, device=q.device).expand(H, W, W)
        # The GPU's memory-efficient kernel takes half-precision heads in multiples of 8 only; zeros change nothing.
        zeros = -(d + H + W) % 8
        q = F.pad(torch.cat([q * self.scale, bias_h, bias_w], dim=-1), (0, zeros)).flatten(2, 3)
        onehot = F.pad(torch.cat([onehot_h, onehot_w], dim=-1), (0, zeros))
        k = torch.cat([k, onehot.expand(*k.shape[:4], -1)], dim=-1).flatten(2, 3)
        v = v.flatten(2, 3)
        if v.device.type == "cpu":
            # The CPU's fused kernel wants one head dimension for all three.
            return F.scaled_dot_product_attention(q, k, F.pad(v, (0, q.shape[-1] - d)), scale=1.0)[..., :d]
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)
