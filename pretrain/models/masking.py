"""Which patches the encoder sees: random masks (MAE, ConvMAE) and complementary ones (FastConvMAE)."""

from typing import NamedTuple

import torch

from pretrain.common.errors import UserError

__all__ = ["PatchMask", "complementary_mask", "keep_first", "num_visible", "random_mask", "take_patches"]

COMPLEMENTARY_GROUPS = 4


class PatchMask(NamedTuple):
    """The masks of M masked views, `M = B` or, group-major, `M = 4 B`; L patches of which K are visible.

    Attributes:
        ids_keep: `(M, K)` indices in [0, L) of the visible patches.
        ids_masked: `(M, L - K)` indices of the others.
        ids_restore: `(M, L)`, inverts the order of `cat(ids_keep, ids_masked)`.
        mask: `(M, L)` float, 0 where visible and 1 where masked.
    """

    ids_keep: torch.Tensor
    ids_masked: torch.Tensor
    ids_restore: torch.Tensor
    mask: torch.Tensor


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """Number of visible patches K.

    Raises:
        UserError: the ratio is not in [0, 1) or leaves nothing visible.
    """
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio must be at least 0 and below 1, got {mask_ratio}.")
    K = int(num_patches * (1 - mask_ratio))
    if K < 1:
        raise UserError(f"mask_ratio {mask_ratio} leaves none of the {num_patches} patches visible; lower it.")
    return K


def random_mask(noise: torch.Tensor, mask_ratio: float) -> PatchMask:
    """Keeps the patches of smallest noise (MAE, arXiv:2111.06377).

    Args:
        noise: `(B, L)` uniform noise.

    Raises:
        UserError: `mask_ratio` is out of range.
    """
    K = num_visible(noise.shape[1], mask_ratio)
    return keep_first(noise.argsort(dim=1), K)


def complementary_mask(noise: torch.Tensor, mask_ratio: float) -> PatchMask:
    """Cuts one shuffle into four groups; group i is what view i sees, so each patch is visible exactly once
    (FastConvMAE). Views are stacked group-major: `M = 4 B`.

    Args:
        noise: `(B, L)` uniform noise.

    Raises:
        UserError: `mask_ratio` is not 0.75, or L is not divisible by 4.
    """
    L = noise.shape[1]
    if mask_ratio != 1 - 1 / COMPLEMENTARY_GROUPS:
        raise UserError(f"Complementary masking (FastConvMAE) needs mask_ratio 0.75, got {mask_ratio}.")
    if L % COMPLEMENTARY_GROUPS:
        raise UserError(f"Complementary masking needs a number of patches divisible by four, got {L}.")
    K = L // COMPLEMENTARY_GROUPS
    ids_shuffle = noise.argsort(dim=1)
    return keep_first(torch.cat([ids_shuffle.roll(-i * K, dims=1) for i in range(COMPLEMENTARY_GROUPS)]), K)


def keep_first(ids_shuffle: torch.Tensor, K: int) -> PatchMask:
    """The masks that show the first K patches of each shuffle `(M, L)`."""
    ids_restore = ids_shuffle.argsort(dim=1)
    return PatchMask(ids_shuffle[:, :K], ids_shuffle[:, K:], ids_restore, (ids_restore >= K).float())


def take_patches(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Patches x `(B, L, C)` at ids `(M, N)`, to `(M, N, C)`; `M` is B or a multiple of it, group-major."""
    B, L, _ = x.shape
    offsets = torch.arange(B, device=ids.device).repeat(ids.shape[0] // B) * L
    return x.flatten(0, 1).index_select(0, (ids + offsets[:, None]).flatten()).unflatten(0, ids.shape)
