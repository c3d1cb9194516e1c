"""Absolute position embeddings: the fixed 2-D sine-cosine table and the resizing of learned ones."""

import torch
import torch.nn.functional as F
from einops import rearrange

from pretrain.common.errors import UserError

__all__ = ["resize_pos_embed", "sincos_pos_embed"]


def sincos_pos_embed(embed_dim: int, grid_size: tuple[int, int], num_prefix_tokens: int = 0) -> torch.Tensor:
    """The 2-D table of MAE (arXiv:2111.06377).

    The column coordinate fills the first half of the channels and the row coordinate the second; in each half, sines
    come before cosines, with frequencies `10000 ** (-i / (embed_dim / 4))`.

    Args:
        num_prefix_tokens: tokens before those of the grid, such as a class token; their entries are zeros, as in MAE.

    Returns:
        float32 `(1, num_prefix_tokens + H * W, embed_dim)`, rows of the grid first.

    Raises:
        UserError: `embed_dim` is not divisible by 4.
    """
    if embed_dim % 4:
        raise UserError(f"A 2-D sine-cosine position embedding needs embed_dim divisible by 4, got {embed_dim}.")
    height, width = grid_size
    omega = 10000.0 ** (-torch.arange(embed_dim // 4, dtype=torch.float64) / (embed_dim / 4))
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [position.reshape(-1, 1) * omega for position in (column, row)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return F.pad(table.float(), (0, 0, num_prefix_tokens, 0)).unsqueeze(0)


def resize_pos_embed(pos_embed: torch.Tensor, old_size: tuple[int, int], new_size: tuple[int, int]) -> torch.Tensor:
    """Resizes `(1, H * W, C)` from one grid to another, bicubically without aligned corners, as ViTDet does.

    timm 1.0.31's `resample_abs_pos_embed` gives the same numbers, but that of 1.0.21 returns a grid of 4x9 unchanged
    where one of 6x6 is asked for.

    Raises:
        UserError: the embedding does not have `old_size` positions.
    """
    if pos_embed.shape[1] != old_size[0] * old_size[1]:
        raise UserError(f"A position embedding of {pos_embed.shape[1]} positions is not a grid of {tuple(old_size)}.")
    if tuple(old_size) == tuple(new_size):
        return pos_embed
    grid = rearrange(pos_embed, "1 (h w) c -> 1 c h w", h=old_size[0])
    grid = F.interpolate(grid.float(), size=tuple(new_size), mode="bicubic", align_corners=False)
    return rearrange(grid, "1 c h w -> 1 (h w) c").to(pos_embed.dtype)
