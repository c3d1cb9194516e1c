"""What a detector found in one image, in pixels of that image: boxes, masks, COCO results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Detections", "concatenate", "decode_mask", "encode_mask", "in_original", "paste"]

THRESHOLD = 0.5
"""Least probability of a pixel that belongs to an object."""


@dataclass(frozen=True)
class Detections:
    """Objects in one image, the best score first.

    Attributes:
        size: height and width of the image in pixels.
        boxes: float32 `(N, 4)` as x0, y0, x1, y1 in pixels.
        scores: float32 `(N,)`.
        classes: int64 `(N,)`, indices of the model's classes.
        soft_masks: float32 `(N, h, w)`, probabilities within each box; None for a model without masks.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    soft_masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: np.ndarray) -> "Detections":
        """Some of them, by indices or a mask."""
        masks = None if self.soft_masks is None else self.soft_masks[chosen]
        return Detections(self.size, self.boxes[chosen], self.scores[chosen], self.classes[chosen], masks)

    @property
    def masks(self) -> Iterator[np.ndarray]:
        """Bool `(H, W)` of each object, one at a time, as those of large images fill the memory."""
        for box, mask in zip(self.boxes, self.soft_masks if self.soft_masks is not None else (), strict=True):
            yield paste(mask, box, self.size)

    def to_coco(self, image_id: int, categories: list[dict]) -> list[dict]:
        """COCO results: category ids of the annotation file, boxes as x, y, width, height, run-length masks."""
        results = []
        masks = self.masks if self.soft_masks is not None else None
        for box, score, index in zip(self.boxes.tolist(), self.scores.tolist(), self.classes.tolist(), strict=True):
            x0, y0, x1, y1 = box
            result = {
                "image_id": image_id,
                "category_id": categories[index]["id"] if index < len(categories) else index,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            if masks is not None:
                result["segmentation"] = encode_mask(next(masks))
            results.append(result)
        return results


def concatenate(parts: Sequence[Detections]) -> Detections:
    """All objects of several results for one image, in this order."""
    masks = [part.soft_masks for part in parts if part.soft_masks is not None]
    boxes, scores, classes = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "classes")
    )
    return Detections(parts[0].size, boxes, scores, classes, np.concatenate(masks) if masks else None)


def in_original(boxes: np.ndarray, size: tuple[int, int], scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes `(N, 4)` of the network's image in that of the file, and bool `(N,)`: which have an area there.

    Args:
        size: height and width of the file's image.
        scale: its pixels in one of the network's, down and across.
    """
    factors = np.array([scale[1], scale[0]] * 2, np.float32)
    limits = np.array([size[1], size[0]] * 2, np.float32)
    boxes = np.clip(boxes * factors, 0, limits)
    return boxes, np.all(boxes[:, 2:] > boxes[:, :2], axis=1)


def paste(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A soft mask `(h, w)` in the place of its box, bool `(H, W)`: bilinear, as detectron2 pastes it."""
    x0, y0, x1, y1 = box
    pasted = np.zeros(size, bool)
    top, left = (max(0, int(np.floor(side)) - 1) for side in (y0, x0))
    bottom, right = (min(length, int(np.ceil(side)) + 1) for length, side in zip(size, (y1, x1), strict=True))
    rows = _interpolation(np.arange(top, bottom), y0, y1, mask.shape[0])
    columns = _interpolation(np.arange(left, right), x0, x1, mask.shape[1])
    pasted[top:bottom, left:right] = rows @ mask.astype(np.float32) @ columns.T >= THRESHOLD
    return pasted


def _interpolation(pixels: np.ndarray, start: float, stop: float, length: int) -> np.ndarray:
    """Weights `(pixels, length)` of a mask's entries at the centres of pixels; beyond its border there are zeros."""
    places = (pixels + np.float32(0.5) - start) / (stop - start) * length - np.float32(0.5)
    weights = 1 - np.abs(places[:, None] - np.arange(length))
    return np.clip(weights, 0, None).astype(np.float32)


def encode_mask(mask: np.ndarray) -> dict:
    """A mask bool `(H, W)` as COCO's compressed run lengths: column by column, zeros first.

    Each length, from the fourth on its difference from the one before the last, is written in groups of 5 bits, the
    lowest first, as characters from 48 on; 32 marks that more follow.
    """
    flat = np.concatenate([[False], mask.flatten(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    if lengths[-1] == 0 and len(lengths) > 1:
        lengths.pop()  # the mask ends in an object
    text = []
    for i, length in enumerate(lengths):
        x = length - lengths[i - 2] if i > 2 else length
        while True:
            bits, x = x & 31, x >> 5
            more = x != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
            if not more:
                break
    return {"size": list(mask.shape), "counts": "".join(text)}


def decode_mask(segmentation: dict) -> np.ndarray:
    """The mask bool `(H, W)` of COCO's compressed run lengths."""
    lengths: list[int] = []
    x = shift = 0
    for character in segmentation["counts"]:
        bits = ord(character) - 48
        x |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            x -= (1 << shift) if bits & 16 else 0
            lengths.append(x + (lengths[-2] if len(lengths) > 2 else 0))
            x = shift = 0
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return values.reshape(segmentation["size"], order="F")
