"""Masks of large images as run lengths, encoded one by one: as a tensor they would take a byte a pixel and object."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, ROIMasks
from pycocotools import mask as mask_util

__all__ = ["LARGEST", "EncodedMasks", "bounded_masks", "encode_masks", "place_mask"]

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
        return encode_masks(one.tensor[0] for one in pasted)

    ROIMasks.to_bitmasks = to_bitmasks
    try:
        yield
    finally:
        ROIMasks.to_bitmasks = original


def encode_masks(masks: Iterable[torch.Tensor]) -> EncodedMasks:
    """Bool masks `(H, W)` as run lengths, one at a time."""
    return EncodedMasks([mask_util.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8))) for mask in masks])


def place_mask(rle: dict, top: int, left: int, height: int, width: int) -> dict:
    """The run lengths of a mask as part of a larger one, which is never built: only the columns that it covers are.

    Args:
        rle: run lengths of pycocotools, column by column.
        top, left: its place, in pixels.
        height, width: of the larger mask.
    """
    mask = mask_util.decode(rle)
    columns = np.flatnonzero(mask.any(0))
    first, end = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    band = np.zeros((height, end - first), np.uint8)
    band[top : top + len(mask)] = mask[:, first:end]
    changes = np.flatnonzero(np.diff(band.flatten(order="F"), prepend=0, append=0))
    # Runs of zeros and ones take turns; the first and the last are zeros.
    runs = np.diff(changes, prepend=0, append=band.size).tolist()
    runs[0] += (left + first) * height
    runs[-1] += (width - left - end) * height
    return mask_util.frPyObjects({"size": [height, width], "counts": runs if runs[-1] else runs[:-1]}, height, width)
