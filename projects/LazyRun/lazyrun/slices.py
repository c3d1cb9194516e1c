"""Sliced prediction: a large image is predicted piece by piece, and what is found is merged.

NumPy alone, as the runner of exported models needs it without PyTorch. The idea, and the whole image as one more piece,
are from Akyon et al., Slicing Aided Hyper Inference (arXiv:2202.06934).

Two libraries slice images for any detector. sahi 0.12 needs a wrapper class for each kind of model and OpenCV with
windows in place of the headless one, and makes polygons of masks. supervision 0.31 takes a function, but needs SciPy,
PyAV and others, and leaves out the whole image. Neither knows which objects a slice has cut, and both may take two
objects for one that the detector has told apart in one slice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Found", "Place", "Slicing", "SlicingError"]

Place = tuple[int, int, int, int]
"""Rows and columns of a slice in its image: top, left, bottom, right, in pixels; the last two are beyond it."""

MOST = 10_000
"""Slices of an image; more are taken for a mistake."""

BORDER = 0.02
"""How near to a border of a slice a box must end to count as cut there, as a share of the slice's side: boxes of cut
objects end a little before or beyond it."""

METRICS = ("iou", "ios")


class SlicingError(ValueError):
    """Options or an image that slices cannot be made of; the message names the value and the way out."""


@dataclass(frozen=True)
class Found:
    """What was found in the slices of an image, in pixels of that image.

    Attributes:
        boxes: `(N, 4)` as x0, y0, x1, y1.
        scores: `(N,)`.
        classes: int `(N,)`.
        slices: int `(N,)`, which slice each is from.
        cut: bool `(N,)`, whether it ends at a border that its slice does not share with the image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    slices: np.ndarray
    cut: np.ndarray


@dataclass(frozen=True)
class Slicing:
    """How images are sliced and results merged.

    Of two objects of one class from different slices the one with the lower score is dropped if their boxes overlap by
    `threshold` or more. Objects of one slice are not compared: the detector has told them apart. An object that its
    slice has cut counts less than any that is whole, whatever the scores, and is dropped if `threshold` of its own box
    is covered.

    Args:
        size: side of the square slices in pixels of the image. An image that is not larger is not sliced.
        overlap: least share of its side that a slice has in common with the next one, in [0, 1). Objects up to
            `overlap * size` pixels are whole in some slice.
        whole: also predict the whole image, for objects larger than that.
        metric: "iou": intersection over union; "ios": intersection over the smaller box, which also drops parts that
            were taken for objects of their own, and with them real objects in front of a larger one of their class.
        threshold: in (0, 1].

    Raises:
        SlicingError: a value is none of these.
    """

    size: int
    overlap: float = 0.2
    whole: bool = True
    metric: str = "iou"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise SlicingError(f"slice={self.size} must be a whole number of pixels, at least 1.")
        if not _is_number(self.overlap) or not 0 <= self.overlap < 1:
            raise SlicingError(f"slice_overlap={self.overlap} must be at least 0 and below 1, such as 0.2.")
        if not isinstance(self.whole, bool):
            raise SlicingError(f"slice_whole={self.whole} must be true or false.")
        if self.metric not in METRICS:
            raise SlicingError(f"slice_metric={self.metric} is neither iou nor ios.")
        if not _is_number(self.threshold) or not 0 < self.threshold <= 1:
            raise SlicingError(f"slice_threshold={self.threshold} must be above 0 and at most 1, such as 0.5.")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "Slicing | None":
        """Of `slice` and `slice_overlap`, `slice_whole`, … as configs and calls have them; None where `slice` is.

        Raises:
            TypeError: there is no option of a name.
            SlicingError: a value cannot be used.
        """
        named = {key.removeprefix("slice_") if key != "slice" else "size": value for key, value in options.items()}
        size = named.get("size")
        slicing = cls(**{**named, "size": 1 if size is None else size})  # what the others say is checked in any case
        return None if size is None else slicing

    def places(self, height: int, width: int) -> list[Place]:
        """The slices of an image, row by row, spread evenly; none if the image is not larger than one.

        Raises:
            SlicingError: there are more than :data:`MOST`.
        """
        if max(height, width) <= self.size:
            return []
        rows, columns = self._starts(height), self._starts(width)
        if len(rows) * len(columns) > MOST:
            raise SlicingError(
                f"slice={self.size} with slice_overlap={self.overlap} makes {len(rows) * len(columns)} slices of "
                f"{width}x{height} pixels, more than {MOST}; take larger slices."
            )
        return [(y, x, min(y + self.size, height), min(x + self.size, width)) for y in rows for x in columns]

    def _starts(self, length: int) -> list[int]:
        if length <= self.size:
            return [0]
        step = max(1, self.size - math.ceil(self.overlap * self.size))
        steps = -(-(length - self.size) // step)
        return [i * (length - self.size) // steps for i in range(steps + 1)]

    def cut(self, boxes: np.ndarray, place: Place, height: int, width: int) -> np.ndarray:
        """Which objects of a slice its borders have cut, bool `(N,)`.

        Args:
            boxes: `(N, 4)` in pixels of the image.
            place: of the slice.
            height, width: of the image.
        """
        top, left, bottom, right = place
        near = BORDER * self.size
        starts = [(boxes[:, 0], left), (boxes[:, 1], top)]
        ends = [(boxes[:, 2], right, width), (boxes[:, 3], bottom, height)]
        sides = [side <= border + near for side, border in starts if border > 0]
        sides += [side >= border - near for side, border, length in ends if border < length]
        return np.any(sides, axis=0) if sides else np.zeros(len(boxes), bool)

    def merge(self, found: Found, limit: int) -> np.ndarray:
        """Indices of the objects that remain, at most `limit`, the best score first."""
        kept = [self._merge_class(found, np.flatnonzero(found.classes == c)) for c in np.unique(found.classes)]
        indices = np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)
        return indices[np.argsort(-found.scores[indices], kind="stable")][:limit]

    def _merge_class(self, found: Found, indices: np.ndarray) -> np.ndarray:
        """Those of some objects of one class that remain: the whole ones by score, then those that are cut."""
        order = indices[np.lexsort((-found.scores[indices], found.cut[indices]))]
        boxes, slices, cut = found.boxes[order].astype(np.float64), found.slices[order], found.cut[order]
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        dropped = np.zeros(len(order), bool)
        for i in range(len(order) - 1):
            if dropped[i]:
                continue
            later = slice(i + 1, None)
            sides = np.minimum(boxes[i, 2:], boxes[later, 2:]) - np.maximum(boxes[i, :2], boxes[later, :2])
            shared = sides.clip(0).prod(1)
            smaller = np.minimum(areas[i], areas[later])
            whole = smaller if self.metric == "ios" else areas[i] + areas[later] - shared
            of = np.where(cut[later], smaller if cut[i] else areas[later], whole)
            dropped[later] |= (shared >= self.threshold * of) & (of > 0) & (slices[later] != slices[i])
        return order[~dropped]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
