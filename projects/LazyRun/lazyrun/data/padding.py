"""Whether the square or crop that test images are padded to is large enough for them."""

import math
from collections.abc import Sequence

import numpy as np
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf

from pretrain.common.errors import UserError

__all__ = ["check_padding"]

ELONGATED = ((12, 120), (120, 12))
"""Height and width of images so far from square that the test transform makes their longer side as long as it can."""

WAY_OUT = "set the max_size of its resizing (in this project's configs data.test_max_size)"


def check_padding(cfg: DictConfig) -> None:
    """Raises UserError if test images could be larger than the square or crop that they are padded to.

    detectron2 would cut them off at its edge without a word. The test loader's own augmentations are applied to
    elongated images, so the answer holds for whatever the config makes of them.
    """
    square = cfg.model.get("backbone", {}).get("square_pad", 0)
    nodes = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations") or []
    try:
        augmentations = list(instantiate(nodes))
    except (TypeError, ValueError, AssertionError) as e:
        raise UserError(f"dataloader.test.mapper.augmentations cannot be built: {e}") from e
    if not (square or any(isinstance(a, T.FixedSizeCrop) for a in augmentations)):
        return
    try:
        longest, crop = _sizes(augmentations)
    except (TypeError, ValueError, AssertionError) as e:
        raise UserError(f"dataloader.test.mapper.augmentations cannot be applied to an image: {e}") from e
    if longest > crop:
        raise UserError(
            f"dataloader.test.mapper.augmentations makes images up to {longest} pixels long and then cuts them to a "
            f"crop of {crop}; {WAY_OUT} to {crop}."
        )
    if 0 < square < longest:
        raise UserError(
            f"dataloader.test.mapper.augmentations makes images up to {longest} pixels long, more than "
            f"model.backbone.square_pad={square}, the square that they are padded to; {WAY_OUT} to {square}, or add "
            "model.backbone.square_pad=0 to evaluate rectangles."
        )


def _sizes(augmentations: Sequence[T.Augmentation]) -> tuple[int, float]:
    """Longest side in pixels before any crop, and the shortest side of the crops, infinite without one."""
    longest, crop = 0, math.inf
    for shape in ELONGATED:
        inputs = T.AugInput(np.zeros((*shape, 3), np.uint8))
        for augmentation in augmentations:
            if isinstance(augmentation, T.FixedSizeCrop):
                crop = min(crop, *augmentation.crop_size)
                break
            augmentation(inputs)
        longest = max(longest, *inputs.image.shape[:2])
    return longest, crop
