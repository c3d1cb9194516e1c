"""Position embeddings of clips: a spatial and a temporal sine-cosine table, and the resizing of learned ones."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat

from pretrain.common.errors import UserError
from pretrain.models.pos_embed import resize_pos_embed, sincos_pos_embed

__all__ = ["ClipGrid", "resize_clip_pos_embed", "sincos_clip_pos_embed"]

ClipGrid = tuple[int, int, int]
"""Time slots, rows and columns."""


def sincos_clip_pos_embed(embed_dim: int, grid: ClipGrid) -> torch.Tensor:
    """The image's 2-D table plus a 1-D table of the time slots.

    The temporal table has sines before cosines, with frequencies `10000 ** (-i / (embed_dim / 2))`. No published code
    says how VideoConvMAE marks positions; this sum is ours.

    Returns:
        float32 `(1, slots * rows * columns, embed_dim)`, slots first, then rows.

    Raises:
        UserError: `embed_dim` is not divisible by 4.
    """
    slots, rows, columns = grid
    space = sincos_pos_embed(embed_dim, (rows, columns))
    omega = 10000.0 ** (-torch.arange(embed_dim // 2, dtype=torch.float64) / (embed_dim / 2))
    angle = torch.arange(slots).unsqueeze(1) * omega
    time = torch.cat([angle.sin(), angle.cos()], dim=1).float()
    # (1, L, C) + (T, 1, C) -> (T, L, C) -> (1, T * L, C)
    return (space + time.unsqueeze(1)).flatten(0, 1).unsqueeze(0)


def resize_clip_pos_embed(pos_embed: torch.Tensor, old: ClipGrid, new: ClipGrid) -> torch.Tensor:
    """Resizes `(1, slots * rows * columns, C)` from one grid to another: bicubically in space, linearly in time.

    A table of one slot, which is an image's, is repeated.

    Raises:
        UserError: the embedding does not have `old` positions.
    """
    if pos_embed.shape[1] != old[0] * old[1] * old[2]:
        raise UserError(f"A position embedding of {pos_embed.shape[1]} positions is not a grid of {tuple(old)}.")
    if tuple(old) == tuple(new):
        return pos_embed
    slots = rearrange(pos_embed, "1 (t l) c -> t l c", t=old[0])
    slots = torch.cat([resize_pos_embed(slot.unsqueeze(0), old[1:], new[1:]) for slot in slots])
    if old[0] == 1:
        slots = repeat(slots, "1 l c -> t l c", t=new[0])
    elif old[0] != new[0]:
        lines = rearrange(slots.float(), "t l c -> l c t")
        lines = F.interpolate(lines, size=new[0], mode="linear", align_corners=False)
        slots = rearrange(lines, "l c t -> t l c").to(pos_embed.dtype)
    return rearrange(slots, "t l c -> 1 (t l) c")
