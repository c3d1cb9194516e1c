"""The contents of COCO's `segmentation`: checked before any C code sees them, which trusts what it is given."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["BadMask", "Mask", "clean_mask"]

Bounds = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

POINTS = 3
"""Fewest points of a polygon that has an area."""

BEYOND = 1.0
"""How far outside its image a polygon may reach, in widths or heights of the image. Rasterising takes memory in
proportion to its length, so one wrong digit can exhaust it."""

FLAT = "polygons written as one flat list"
NESTED = "polygons written as lists of points"
BARE_RUNS = "run-length masks without their size"
WHOLE_RUNS = "run-length masks whose numbers have a decimal point"
THIN = "polygons of fewer than three points"

LARGEST_GROUP = 12
"""Characters that one run length takes at most: 5 bits each, for a signed number of 60 bits."""


class BadMask(ValueError):
    """A segmentation that cannot be used; the message says what is wrong with it."""


@dataclass
class Mask:
    """A segmentation that can be used.

    Attributes:
        value: polygons, each x, y, x, y, … in pixels; or run lengths, `{"size": [H, W], "counts": …}`; None for none.
        oddities: what was mended or left out.
        bounds: x0, y0, x1, y1 of the polygons.
    """

    value: list | dict | None
    oddities: tuple[str, ...] = ()
    bounds: Bounds | None = None


def clean_mask(value: object, size: tuple[int, int] | None) -> Mask:
    """Checks a `segmentation`.

    Args:
        value: as the file has it.
        size: width and height of the image; None where the file does not tell.

    Raises:
        BadMask: it is of no known kind, or its numbers cannot be right.
    """
    if not value:
        if value is None or value == "" or isinstance(value, list | dict):
            return Mask(None)
        raise BadMask(f"{value!r} in place of polygons or run lengths")
    if isinstance(value, dict):
        return _run_lengths(value, size)
    if not isinstance(value, list):
        raise BadMask(f"{_shown(value)} in place of polygons or run lengths")
    if not isinstance(value[0], list | dict):
        return _flat(value, size)
    return _polygons(value, size)


def _polygons(parts: list, size: tuple[int, int] | None) -> Mask:
    oddities = []
    if len(parts) >= POINTS and all(_is_point(p) for p in parts):
        parts, oddities = [_joined(parts)], [NESTED]
    kept, bounds = [], None
    for part in parts:
        if isinstance(part, dict):
            raise BadMask("a list of objects in place of a list of polygons")
        if not isinstance(part, list):
            raise BadMask(f"{_shown(part)} in place of a polygon")
        if part and isinstance(part[0], list):
            if not all(_is_point(p) for p in part):
                raise BadMask(f"lists within a polygon that are no points, {_shown(part)}")
            part = _joined(part)
            oddities.append(NESTED)
        if not part:
            continue
        box = _bounds(part)
        if len(part) < 2 * POINTS:
            oddities.append(THIN)
            continue
        bounds = box if bounds is None else _union(bounds, box)
        kept.append(part)
    if bounds is not None and size is not None:
        _check_reach(bounds, size)
    return Mask(kept or None, tuple(dict.fromkeys(oddities)), bounds)


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(v) for v in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and abs(value) < 2**53 and value == int(value)


def _joined(points: list) -> list:
    return [v for point in points for v in point]


def _bounds(numbers: list) -> Bounds:
    """x0, y0, x1, y1 of a polygon.

    Raises:
        BadMask: its coordinates are no pairs of finite numbers.
    """
    if not set(map(type, numbers)) <= {int, float}:
        raise BadMask(f"{_shown(next(v for v in numbers if not _is_number(v)))} in place of a coordinate")
    try:
        finite = math.isfinite(math.fsum(numbers))
    except (OverflowError, ValueError):  # what fsum says of numbers that cancel out to no number
        finite = False
    if not finite:
        wrong = [v for v in numbers if isinstance(v, float) and not math.isfinite(v)] or [max(numbers, key=abs)]
        raise BadMask(f"the coordinate {_shown(wrong[0])}")
    if len(numbers) % 2:
        raise BadMask(f"a polygon of {len(numbers)} numbers, which are no pairs x, y")
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def _union(a: Bounds, b: Bounds) -> Bounds:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _check_reach(bounds: Bounds, size: tuple[int, int]) -> None:
    """Raises BadMask for polygons that lie outside of their image, or reach far beyond it."""
    (x0, y0, x1, y1), (width, height) = bounds, size
    if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
        raise BadMask(f"polygons outside of the image: x from {x0} to {x1}, y from {y0} to {y1} in {width}x{height}")
    for low, high, side in ((x0, x1, width), (y0, y1, height)):
        if low < -BEYOND * side or high > (1 + BEYOND) * side:
            far = low if low < -BEYOND * side else high
            raise BadMask(f"the coordinate {_shown(far)} in {width}x{height} pixels")


def _flat(numbers: list, size: tuple[int, int] | None) -> Mask:
    """One list of numbers: a polygon, or run lengths if they add up to the pixels of the image and no side is that
    long."""
    numeric = set(map(type, numbers)) <= {int, float}
    if size is not None and numeric and max(numbers) > max(size) and sum(numbers) == size[0] * size[1]:
        return _run_lengths({"counts": numbers}, size)
    try:
        mask = _polygons([numbers], size)
    except BadMask as e:
        raise BadMask(f"a flat list of numbers that is neither a polygon nor run lengths: {e}") from e
    return Mask(mask.value, (FLAT, *mask.oddities), mask.bounds)


def _run_lengths(value: dict, size: tuple[int, int] | None) -> Mask:
    oddities = []
    counts, stated = value.get("counts"), value.get("size")
    if counts is None:
        raise BadMask(f"an object without counts, {_shown(value)}")
    lengths = _decoded(counts) if isinstance(counts, str) else _listed(counts)
    if isinstance(counts, list) and float in set(map(type, counts)):
        oddities.append(WHOLE_RUNS)
    if stated is None and size is not None:
        stated = [size[1], size[0]]
        oddities.append(BARE_RUNS)
    if not (isinstance(stated, list) and len(stated) == 2 and all(_is_whole(s) for s in stated)):
        raise BadMask(f"run lengths of the size {_shown(stated)}, which is not [height, width]")
    height, width = map(int, stated)
    if size is not None and (width, height) != size:
        turned = ", with height and width exchanged" if (height, width) == size else ""
        raise BadMask(f"run lengths for {width}x{height} pixels in an image of {size[0]}x{size[1]}{turned}")
    if lengths.sum() != height * width:
        raise BadMask(f"run lengths that add up to {lengths.sum()} pixels in place of {width}x{height}")
    return Mask(
        {"size": [height, width], "counts": counts if isinstance(counts, str) else lengths.tolist()}, tuple(oddities)
    )


def _listed(counts: object) -> np.ndarray:
    if not isinstance(counts, list) or not all(_is_whole(v) for v in counts):
        raise BadMask(f"run lengths that are no whole numbers, {_shown(counts)}")
    if min(counts, default=0) < 0:
        raise BadMask(f"the negative run length {min(counts)}")
    return np.array(counts, dtype=np.int64)


def _decoded(text: str) -> np.ndarray:
    """The run lengths of COCO's compressed text: 5 bits a character, the lowest first, a sixth bit says that another
    follows; from the fourth number on differences to the number before the last."""
    broken = BadMask(f"run lengths that are no compressed text, {_shown(text)}")
    try:
        codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as e:
        raise broken from e
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise broken
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.append(0, ends[:-1] + 1)
    sizes = ends - starts + 1
    if sizes.max() > LARGEST_GROUP:
        raise broken
    places = np.arange(len(codes)) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((codes & 31) << (5 * places), starts)
    numbers -= ((codes[ends] & 16) > 0).astype(np.int64) << (5 * sizes)
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    if numbers.min() < 0:
        raise broken
    return numbers


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
