"""A colour for each class."""

import colorsys

__all__ = ["class_colors"]

GOLDEN_RATIO = 0.618034
FIRST_HUE = 0.58  # blue: the first class is often the background
TONES = ((0.45, 0.85), (0.75, 0.95), (0.9, 0.7))
"""Saturation and value of neighbouring classes, in turn."""


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """A colour for each class, RGB in 0…255: hues spread by the golden angle, in three tones in turn."""
    colors = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb((FIRST_HUE + index * GOLDEN_RATIO) % 1, *TONES[index % len(TONES)])
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors
