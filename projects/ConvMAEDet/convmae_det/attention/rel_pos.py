"""Windowed and global attention with decomposed relative positions, without the N×N matrix."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from convmae_det.attention.chunked import chunked_attention
from convmae_det.attention.folded import folded_attention
from pretrain.common.errors import UserError
from pretrain.models.recompute import norm_linear

__all__ = ["RelPosAttention", "attention_function", "relative_positions"]

MIN_CHUNKED_LOGITS = 2**18
"""Logits of a window, over all heads, from which on going through the windows one by one is worth it."""


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


class RelPosAttention(nn.Module):
    """Multi-head self-attention over a grid `(B, H, W, C)`, all of it or in windows.

    Args:
        dim: channels.
        num_heads: attention heads; divides `dim`.
        use_rel_pos: add decomposed relative positions (see :mod:`convmae_det.attention.folded`).
        rel_pos_zero_init: initialise them to zero instead of a truncated normal of std 0.02.
        input_size: grid `(H, W)` whose relative positions are stored; other grids use a linear resize of them.
        window_size: side of the windows in tokens, 0 for global attention. The grid is padded at the bottom and right
            to whole windows; as in ViTDet the padding takes part as keys.

    Raises:
        UserError: `dim` is not divisible by `num_heads`.
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
            raise UserError(f"embed_dim {dim} is not divisible by num_heads {num_heads}.")
        head_dim = dim // num_heads
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.window_size = window_size
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            assert window_size or input_size is not None, "global attention needs the grid of its positions"
            height, width = (window_size, window_size) if window_size or input_size is None else input_size
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, head_dim))
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        """Attention over `norm(x)`, x `(B, H, W, C)`; the pre-norm is fused into the projection."""
        qkv = norm_linear(x, norm, self.qkv)
        h, w = (self.window_size, self.window_size) if self.window_size else x.shape[1:3]
        rel_pos_h = rel_pos_w = None
        if self.use_rel_pos:
            rel_pos_h, rel_pos_w = relative_positions(h, self.rel_pos_h), relative_positions(w, self.rel_pos_w)
        # Tokens that pad the grid are zero *before* the projection: its bias is what they hold after it.
        attend = attention_function(qkv, self.use_rel_pos, self.num_heads, (h, w))
        return self.proj(attend(qkv, self.qkv.bias, rel_pos_h, rel_pos_w, self.num_heads, (h, w)))


def attention_function(
    qkv: torch.Tensor, use_rel_pos: bool, num_heads: int, window: tuple[int, int]
) -> Callable[..., torch.Tensor]:
    """The fastest way to attend on the device and in the precision of `qkv` that does not keep the N×N matrix.

    Chunks for float32 on a CPU: global attention of ConvMAE-B over 64×64 tokens took 3.0 s forward and backward on two
    cores against 3.8 s folded (values are padded to the longer heads there) and 4.0 s with the N×N matrix. The chunks
    go through the windows one by one, which small windows do not repay: 4×4 tokens took 11 times as long as folded,
    8×8 tokens 2 to 3 times, 16×16 tokens the same. Half precision is folded, because sums over chunks would lose
    digits; so is what a compiler, an export or a GPU runs, where chunks only add launches. Nothing has been measured on
    a GPU yet.

    Args:
        qkv: projected tokens, of which the device and precision matter.
        use_rel_pos: there are relative positions.
        num_heads, window: heads, and height and width in tokens, of one window.
    """
    captured = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if captured or not use_rel_pos or qkv.device.type != "cpu" or qkv.dtype.itemsize < 4:
        return folded_attention
    return chunked_attention if num_heads * (window[0] * window[1]) ** 2 >= MIN_CHUNKED_LOGITS else folded_attention
