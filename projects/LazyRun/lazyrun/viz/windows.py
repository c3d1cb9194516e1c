"""Parts of annotated images, at a size for a page."""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as mask_util

from lazyrun.viz.instances import draw_annotations

__all__ = ["draw_window", "window_around"]

SURROUNDINGS = 2.0
"""How far a window reaches beyond an object, in lengths of its longer side."""

LEAST_WINDOW = 64
"""Least side of a window, in pixels of the image."""

Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels."""


def window_around(boxes: Sequence[Sequence[float]], width: int, height: int) -> Window:
    """What to show of an image of this size to see some boxes [x, y, width, height]; without boxes the whole image."""
    if not boxes:
        return 0, 0, width, height
    corners = np.array(boxes, float)
    low, high = corners[:, :2].min(0), (corners[:, :2] + corners[:, 2:]).max(0)
    half = max(LEAST_WINDOW / 2, (0.5 + SURROUNDINGS) * float((high - low).max()))
    sides = np.minimum(np.ceil(2 * half), (width, height)).astype(int)
    first = np.clip(np.floor((low + high) / 2 - half), 0, (width, height) - sides).astype(int)
    return int(first[0]), int(first[1]), int(first[0] + sides[0]), int(first[1] + sides[1])


def draw_window(
    image: np.ndarray,
    annotations: Sequence[dict],
    class_names: dict[int, str],
    window: Window | None = None,
    longest: int = 640,
) -> np.ndarray:
    """Boxes, masks and names over a part of an image.

    Args:
        image: RGB uint8 `(H, W, 3)`.
        annotations: as for :func:`lazyrun.viz.instances.draw_annotations`.
        class_names: by category id.
        window: the part; by default all of it.
        longest: longer side of the picture in pixels, unless the image is smaller.

    Returns:
        RGB uint8, enlarged if the part is small.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = window or (0, 0, width, height)
    scale = min(1.0, longest / max(x1 - x0, y1 - y0))
    size = max(1, round(scale * (x1 - x0))), max(1, round(scale * (y1 - y0)))
    part = image[y0:y1, x0:x1]
    part = cv2.resize(part, size, interpolation=cv2.INTER_AREA) if scale < 1 else np.ascontiguousarray(part)
    shown = [a for a in annotations if _is_seen(a["bbox"], (x0, y0, x1, y1))]
    return draw_annotations(part, [_moved(a, (x0, y0, x1, y1), size) for a in shown], class_names)


def _is_seen(box: Sequence[float], window: Window) -> bool:
    x, y, w, h = box
    return x < window[2] and y < window[3] and x + w > window[0] and y + h > window[1]


def _moved(annotation: dict, window: Window, size: tuple[int, int]) -> dict:
    """An annotation in the pixels of a window that is resized to this width and height."""
    x0, y0, x1, y1 = window
    sx, sy = size[0] / (x1 - x0), size[1] / (y1 - y0)
    x, y, w, h = annotation["bbox"]
    moved = {**annotation, "bbox": [(x - x0) * sx, (y - y0) * sy, w * sx, h * sy]}
    mask = annotation.get("segmentation")
    if isinstance(mask, dict):
        encoded = mask_util.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask
        part = np.ascontiguousarray(mask_util.decode(encoded)[y0:y1, x0:x1])
        moved["segmentation"] = mask_util.encode(
            np.asfortranarray(cv2.resize(part, size, interpolation=cv2.INTER_NEAREST))
        )
    elif mask:
        offset, factor = np.array([x0, y0]), np.array([sx, sy])
        moved["segmentation"] = [((np.array(p, float).reshape(-1, 2) - offset) * factor).ravel().tolist() for p in mask]
    return moved
