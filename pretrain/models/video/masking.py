"""Tube masks (VideoMAE, arXiv:2203.12602), and the masked convolution in the tubes that stay visible."""

import torch

from pretrain.common.errors import UserError
from pretrain.models.masked_conv import VisibleConv
from pretrain.models.masking import PatchMask, keep_first
from pretrain.models.video.trunk import FramewiseConv, SpaceTimeConv

__all__ = ["VisibleTubeConv", "num_visible_tubes", "tube_mask"]


def num_visible_tubes(num_patches: int, mask_ratio: float) -> int:
    """Number K of visible patches in each time slot: `L - int(mask_ratio * L)`, 20 of 196 at 0.9.

    The image's `int(L * (1 - mask_ratio))` would give 19, by rounding.

    Raises:
        UserError: the ratio is not in [0, 1) or leaves nothing visible.
    """
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio must be at least 0 and below 1, got {mask_ratio}.")
    K = num_patches - int(mask_ratio * num_patches)
    if K < 1:
        raise UserError(f"mask_ratio {mask_ratio} leaves none of the {num_patches} patches visible; lower it.")
    return K


def tube_mask(noise: torch.Tensor, mask_ratio: float) -> PatchMask:
    """One spatial mask for all time slots of a clip, which keeps the patches of smallest noise.

    Args:
        noise: `(B, L)`, one value for each patch of a slot.

    Raises:
        UserError: `mask_ratio` is out of range.
    """
    return keep_first(noise.argsort(dim=1), num_visible_tubes(noise.shape[1], mask_ratio))


class VisibleTubeConv:
    """Applies depthwise convolutions to visible tubes: the `apply_conv` of :class:`pretrain.models.layers.ConvBlock`.

    A tube shows the same patches in every slot. So a slot is an image to :class:`VisibleConv`, and a kernel that spans
    three slots is three such convolutions, shifted in time.

    Args:
        ids_keep: `(B, K)` indices of the visible patches, in a grid of `grid_size` patches.
        grid_size: rows and columns of the grid of patches.
        side: tokens along one side of a patch.
        slots: time slots T.
    """

    def __init__(self, ids_keep: torch.Tensor, grid_size: tuple[int, int], side: int, slots: int):
        self.visible = VisibleConv(ids_keep.repeat(slots, 1), grid_size, side)
        self.slots = slots

    def __call__(self, conv: FramewiseConv | SpaceTimeConv, x: torch.Tensor) -> torch.Tensor:
        """Tokens x `(T * B, K, side * side, C)`, slots first, to the same shape."""
        if isinstance(conv, FramewiseConv):
            return self.visible(conv, x)

        def convolve(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            out = self.visible.convolve(x, weight, weight.new_zeros(len(weight)) if bias is None else bias)
            return out.unflatten(0, (self.slots, -1))

        return conv.over_time(convolve, dim=0).flatten(0, 1)
