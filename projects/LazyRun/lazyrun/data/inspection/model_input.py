"""At which size a model sees objects, and which sizes its anchors have: what object sizes are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from lazyrun.data.detections import USUAL, max_detections

__all__ = ["ModelInput", "model_input"]

ANCHORS = ("model.proposal_generator.anchor_generator.sizes", "model.anchor_generator.sizes")
"""Where configs have the sizes of anchors: models with proposals, and those without."""


@dataclass(frozen=True)
class ModelInput:
    """What a model makes of images, as in evaluation. The defaults are those of the COCO configs of this project.

    Attributes:
        short_side: pixels that the shorter side is resized to, unless the longer one becomes too long; None keeps
            images as they are.
        max_size: most pixels of the longer side.
        anchors: sides of the anchors' squares in pixels, ascending; empty for a model without.
        max_detections: most detections in an image.
    """

    short_side: int | None = 1024
    max_size: int = 1024
    anchors: tuple[float, ...] = (32, 64, 128, 256, 512)
    max_detections: int = USUAL

    def scale(self, sizes: np.ndarray) -> np.ndarray:
        """What images are multiplied by, `(N,)`, for their widths and heights `(N, 2)`."""
        if self.short_side is None:
            return np.ones(len(sizes))
        return np.minimum(self.short_side / sizes.min(1), self.max_size / sizes.max(1))

    def __str__(self) -> str:
        if self.short_side is None:
            return "as the images are"
        if self.short_side >= self.max_size:
            return f"longer side {self.max_size}"
        return f"shorter side {self.short_side}, longer one up to {self.max_size}"


def model_input(cfg: DictConfig) -> ModelInput:
    """What a config says: the resizing of its test loader, the anchors, the most detections."""
    short, longest = _resizing(cfg)
    return ModelInput(short, longest, _anchors(cfg), max_detections(cfg))


def _resizing(cfg: DictConfig) -> tuple[int | None, int]:
    for node in OmegaConf.select(cfg, "dataloader.test.mapper.augmentations") or ():
        if isinstance(node, DictConfig) and {"short_edge_length", "max_size"} <= set(node):
            short = max(_numbers(node.short_edge_length), default=0)
            longest = max(_numbers(node.max_size), default=0)
            if short >= 1 and longest >= 1:
                return int(short), int(longest)
    size = OmegaConf.select(cfg, "data.image_size")
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size, size
    return None, 0


def _anchors(cfg: DictConfig) -> tuple[float, ...]:
    found = (OmegaConf.select(cfg, key) for key in ANCHORS)
    sizes = next((sizes for sizes in found if sizes is not None), ())
    return tuple(sorted({size for size in _numbers(sizes) if size > 0}))


def _numbers(value: Any) -> Iterator[float]:
    """All numbers of nested lists."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif OmegaConf.is_list(value) or isinstance(value, list | tuple):
        for entry in value:
            yield from _numbers(entry)
