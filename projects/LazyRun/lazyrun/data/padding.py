"""Whether the square or crop that images are padded to is large enough for them."""

import math
from collections.abc import Sequence

import numpy as np
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lazyrun.data.loader import seeded
from pretrain.common.errors import UserError

__all__ = ["check_padding", "check_training_images", "refuse_cut_off"]

DRAWS = 4
"""How often the random augmentations of training are tried."""

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


def check_training_images(cfg: DictConfig, dataset: Sequence[dict]) -> None:
    """Raises UserError if training images would be larger than the square that the model pads them to.

    The training loader's own augmentations are applied to blank images of the sizes that stand out in the data set.

    Args:
        cfg: of a run.
        dataset: detectron2's dicts; those without `width` and `height` are not checked.
    """
    square = cfg.model.get("backbone", {}).get("square_pad", 0)
    nodes = OmegaConf.select(cfg, "dataloader.train.mapper.augmentations")
    if not square or nodes is None:
        return
    try:
        augmentations = T.AugmentationList(list(instantiate(nodes)))
    except (TypeError, ValueError, AssertionError) as e:
        raise UserError(f"dataloader.train.mapper.augmentations cannot be built: {e}") from e
    for record in _outstanding(dataset):
        height, width = _trained_size(augmentations, record)
        if max(height, width) > square:
            raise UserError(
                f"{record['file_name']} has {width}x{height} pixels after dataloader.train.mapper.augmentations, more "
                f"than model.backbone.square_pad={square}, the square that images are padded to: what is beyond it "
                "would be cut off. Set data.image_size to the size of the images, or end the augmentations with "
                "ResizeShortestEdge(short_edge_length=N, max_size=N), N being data.image_size."
            )


def _outstanding(dataset: Sequence[dict]) -> list[dict]:
    """The widest, highest and most elongated images."""
    sized = [d for d in dataset if d.get("width") and d.get("height")]
    keys = (
        lambda d: d["width"],
        lambda d: d["height"],
        lambda d: d["width"] / d["height"],
        lambda d: d["height"] / d["width"],
    )
    return [max(sized, key=key) for key in keys] if sized else []


def _trained_size(augmentations: T.Augmentation, record: dict) -> tuple[int, int]:
    """Height and width of the largest of some draws; 0 if the augmentations need more than an image."""
    sizes = [(0, 0)]
    for draw in range(DRAWS):
        inputs = T.AugInput(np.zeros((record["height"], record["width"], 3), np.uint8))
        try:
            with seeded(draw):
                augmentations(inputs)
        except (TypeError, ValueError, AssertionError, AttributeError):
            break  # what then reaches the model is looked at there
        sizes.append(inputs.image.shape[:2])
    return max(sizes, key=max)


def refuse_cut_off(model: nn.Module, args: tuple) -> None:
    """A forward pre-hook that raises UserError for an image larger than the square that the model pads it to.

    detectron2 pads by a negative number of pixels, which cuts images off without a word.
    """
    square = getattr(model.backbone, "padding_constraints", {}).get("square_size", 0)
    for sample in args[0] if square and args else ():
        height, width = sample["image"].shape[-2:]
        if max(height, width) > square:
            raise UserError(
                f"{sample.get('file_name', 'An image')} reaches the model with {width}x{height} pixels, more than "
                f"model.backbone.square_pad={square}, the square that it is padded to: what is beyond it would be cut "
                "off. Resize images to data.image_size in the mapper's augmentations."
            )
