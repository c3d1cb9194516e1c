"""Pictures of what was found, with Pillow alone."""

import colorsys
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lazyrun.onnx_runner.detections import Detections

__all__ = ["color_of", "draw_classes", "draw_detections"]

OPACITY = 0.45
GOLDEN_RATIO = 0.618034


@cache
def color_of(index: int) -> tuple[int, int, int]:
    """The colour of a class, RGB in 0…255: hues spread by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * GOLDEN_RATIO) % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(image: np.ndarray, found: Detections, names: Sequence[str]) -> np.ndarray:
    """Boxes, masks, names and scores over an image RGB uint8 `(H, W, 3)`; the best score lies on top."""
    blended = image.astype(np.float32)
    order = range(len(found) - 1, -1, -1)
    if found.soft_masks is not None:
        for i in order:
            (mask,) = found[np.array([i])].masks
            blended[mask] = (1 - OPACITY) * blended[mask] + OPACITY * np.array(color_of(int(found.classes[i])))
    picture = Image.fromarray(blended.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    points = int(np.clip(min(image.shape[:2]) / 30, 9, 28))
    font = ImageFont.load_default(points)
    for i in order:
        index = int(found.classes[i])
        x0, y0, x1, y1 = found.boxes[i].tolist()
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=color_of(index), width=max(1, points // 8))
        name = names[index] if index < len(names) else f"class {index}"
        label = f"{name} {found.scores[i]:.0%}"
        place = (x0, max(0.0, y0 - points - 2))
        draw.rectangle(draw.textbbox(place, label, font=font), fill=color_of(index))
        draw.text(place, label, fill="black", font=font)
    return np.asarray(picture)


def draw_classes(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """An image RGB uint8 `(H, W, 3)` under its class map `(H, W)`."""
    table = np.array([color_of(i) for i in range(int(classes.max()) + 1)], np.float32)
    return ((1 - OPACITY) * image + OPACITY * table[classes]).round().astype(np.uint8)
