"""Outlines and masks of what annotation tools draw besides boxes and polygons."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["CORNERS", "corners_box", "ellipse", "pairs", "rotated_box", "window_mask"]

CORNERS = 64
"""Corners of the polygon that stands for a circle or ellipse; a multiple of 4, so that its extent is the circle's."""


def ellipse(cx: float, cy: float, rx: float, ry: float, size: tuple[int, int], rotation: float = 0.0) -> list[float]:
    """Polygon x, y, x, y, … of an ellipse, cut off at the edges of the image.

    Args:
        cx, cy: centre in pixels.
        rx, ry: half axes in pixels.
        size: width and height of the image.
        rotation: clockwise, as y points down, in radians.
    """
    angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
    # Exact zeros and ones at the four extreme points.
    cos, sin = (np.where(abs(v) < 1e-12, 0.0, v) for v in (np.cos(angle), np.sin(angle)))
    c, s = math.cos(rotation), math.sin(rotation)
    x = cx + rx * cos * c - ry * sin * s
    y = cy + rx * cos * s + ry * sin * c
    return np.stack([x.clip(0, size[0]), y.clip(0, size[1])], axis=1).ravel().tolist()


def rotated_box(box: Sequence[float], degrees: float, about: tuple[float, float]) -> list[float]:
    """The upright box x, y, width, height around such a box that was turned clockwise about a point."""
    x, y, w, h = box
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(px - about[0], py - about[1]) for px in (x, x + w) for py in (y, y + h)]
    xs = [about[0] + px * c - py * s for px, py in corners]
    ys = [about[1] + px * s + py * c for px, py in corners]
    return corners_box(min(xs), min(ys), max(xs), max(ys))


def corners_box(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """x, y, width, height of a box given by two corners; if they are exchanged, a side is negative."""
    return [x1, y1, x2 - x1, y2 - y1]


def window_mask(window: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """Bool `(height, width)` of a mask that was stored for a window of the image; what lies outside is cut off."""
    width, height = size
    mask = np.zeros((height, width), bool)
    x, y = max(left, 0), max(top, 0)
    shown = window[y - top :, x - left :][: max(height - y, 0), : max(width - x, 0)]
    mask[y : y + shown.shape[0], x : x + shown.shape[1]] = shown
    return mask


def pairs(values: Sequence[Sequence[float]]) -> list[float]:
    """Points as one list x, y, x, y, …"""
    return [v for point in values for v in point]
