"""Pictures of class maps: the image under the colours of its classes, and a legend of those present."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convmae_seg.label_maps import IGNORED
from lazyrun.viz.fonts import file_for

__all__ = ["draw_class_map"]

MIN_SIDE = 320
"""Images smaller than this, in pixels, are enlarged so that the legend can be read."""

MAX_ENLARGED = 2048
"""But not beyond this, in pixels: a line of pixels would fill the memory."""

OPACITY = 0.55

LONGEST_NAME = 24  # characters


def draw_class_map(
    image: np.ndarray, classes: np.ndarray, names: Sequence[str], colors: Sequence[Sequence[int]]
) -> np.ndarray:
    """An image under its class map, and the legend at its right: the classes present, the largest first.

    Args:
        image: RGB uint8 `(H, W, 3)`.
        classes: integers `(H, W)`: class indices, and 255 for pixels that are left as they are.
        names: of the classes.
        colors: of the classes, RGB in 0…255.

    Returns:
        RGB uint8; its size depends on that of the image and on `names` alone, as the frames of a video need.
    """
    scale = max(1, min(-(-MIN_SIDE // min(image.shape[:2])), MAX_ENLARGED // max(image.shape[:2])))
    size = (image.shape[1] * scale, image.shape[0] * scale)
    image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image
    drawn = cv2.resize(classes.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    table = np.zeros((256, 3), np.float32)
    table[: len(colors)] = colors
    known = (drawn != IGNORED)[..., None]
    overlay = np.where(known, (1 - OPACITY) * image + OPACITY * table[drawn], image)
    overlay[_borders(drawn)] = 255
    labels, counts = np.unique(classes, return_counts=True)
    order = [i for i in np.argsort(-counts, kind="stable") if labels[i] != IGNORED]
    entries = [(names[labels[i]], colors[labels[i]], counts[i] / classes.size) for i in order]
    return np.hstack([overlay.round().astype(np.uint8), _legend(entries, names, size[1])])


def _borders(classes: np.ndarray) -> np.ndarray:
    """Bool `(H, W)`: pixels whose right or lower neighbour is of another class."""
    border = np.zeros(classes.shape, bool)
    border[:-1] |= classes[:-1] != classes[1:]
    border[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    return border


def _legend(entries: Sequence[tuple[str, Sequence[int], float]], names: Sequence[str], height: int) -> np.ndarray:
    """A white panel of the given height: colour, name and share of the pixels of each entry, as many as find room."""
    points = int(np.clip(height / 28, 13, 36))
    font, row, gap = ImageFont.truetype(file_for("".join(names)), points), round(points * 1.5), points // 2
    width_of_share = round(font.getlength("100.0 %"))
    name_width = max(round(font.getlength(_short(name))) for name in [*names, f"and {len(names)} more"])
    name_x = gap + points + gap
    width = name_x + name_width + 2 * gap + width_of_share + gap
    panel = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(panel)
    room = max(1, (height - gap) // row)
    shown = entries if len(entries) <= room else entries[: room - 1]
    for number, (name, color, share) in enumerate(shown):
        y = gap + number * row
        draw.rectangle((gap, y, gap + points, y + points), fill=tuple(color), outline=(90, 90, 90))
        middle = y + points / 2
        draw.text((name_x, middle), _short(name), fill="black", font=font, anchor="lm")
        draw.text((width - gap, middle), f"{share:.1%}".replace("%", " %"), fill=(90, 90, 90), font=font, anchor="rm")
    if len(shown) < len(entries):
        middle = gap + len(shown) * row + points / 2
        draw.text((name_x, middle), f"and {len(entries) - len(shown)} more", fill=(90, 90, 90), font=font, anchor="lm")
    return np.asarray(panel)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
