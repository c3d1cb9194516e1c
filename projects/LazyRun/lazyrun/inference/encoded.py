"""Masks of large images as run lengths, encoded one by one: as a tensor they would take a byte a pixel and object."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, ROIMasks
from pycocotools import mask as mask_util

__all__ = ["LARGEST", "EncodedMasks", "bounded_masks"]

LARGEST = 1 << 30
"""Bytes of an image's masks as a tensor; larger ones are encoded."""


class EncodedMasks:
    """Stands for a bool tensor `(N, H, W)` in a field of :class:`detectron2.structures.Instances`.

    Attributes:
        rles: N run lengths of pycocotools.
    """

    def __init__(self, rles: Sequence[dict]):
        self.rles = list(rles)

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, item: torch.Tensor | slice) -> "EncodedMasks":
        """Those of a slice, or of a tensor of indices or of N truth values."""
        if isinstance(item, slice):
            return EncodedMasks(self.rles[item])
        indices = item.nonzero().flatten() if item.dtype is torch.bool else item
        return EncodedMasks([self.rles[i] for i in indices.tolist()])

    def __iter__(self) -> Iterator[torch.Tensor]:
        """One mask at a time, bool `(H, W)`."""
        for rle in self.rles:
            yield torch.from_numpy(mask_util.decode(rle)).bool()

    @property
    def tensor(self) -> "EncodedMasks":
        """As :class:`detectron2.structures.BitMasks` has it."""
        return self


@contextmanager
def bounded_masks() -> Iterator[None]:
    """Lets detectron2 encode the masks of an image that would take more than :data:`LARGEST` bytes.

    It pastes the masks of all objects into one tensor in several places (its R-CNN, test-time augmentation), all by
    way of `ROIMasks.to_bitmasks`.
    """
    original = ROIMasks.to_bitmasks

    def to_bitmasks(self: ROIMasks, boxes: Boxes, height: int, width: int, threshold: float = 0.5) -> Any:
        if len(self) * height * width <= LARGEST:
            return original(self, boxes, height, width, threshold)
        pasted = (original(self[i : i + 1], boxes[i : i + 1], height, width, threshold) for i in range(len(self)))
        return EncodedMasks([_encode(one) for one in pasted])

    ROIMasks.to_bitmasks = to_bitmasks
    try:
        yield
    finally:
        ROIMasks.to_bitmasks = original


def _encode(one: BitMasks) -> dict:
    return mask_util.encode(np.asfortranarray(one.tensor[0].cpu().numpy().astype(np.uint8)))
