"""Class maps of images of any size from a network that looks at windows, as `convmae_seg.sliding_window` makes them.

The logits of every window are upsampled, put in their place, averaged where windows overlap, and resized to the
original image. All of this is linear along each side, so each window has one matrix for its rows and one for its
columns.
"""

from collections.abc import Callable
from itertools import product

import numpy as np

__all__ = ["class_map"]

MAX_VALUES = 2**22
"""Logits at the resolution of the image that are held at a time."""


def class_map(
    image: np.ndarray,
    out_size: tuple[int, int],
    window: int,
    stride: int,
    network: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """The class of every pixel.

    Args:
        image: float32 `(3, H, W)` in [0, 255]; smaller ones than a window are padded by the network.
        out_size: height and width of the original image.
        window, stride: side of the windows, and their distance, in pixels.
        network: logits `(1, K, h, w)` of a batch of one image of at most a window's size.

    Returns:
        int64 `(height, width)`.
    """
    starts = [_starts(side, window, stride) for side in image.shape[1:]]
    places = list(product(range(len(starts[0])), range(len(starts[1]))))
    crops = (image[:, y : y + window, x : x + window] for y, x in product(*starts))
    logits = {place: network(np.ascontiguousarray(crop)[None])[0] for place, crop in zip(places, crops, strict=True)}
    num_classes, *sizes = next(iter(logits.values())).shape
    rows, columns = (
        _matrices(length, out, window, starts[axis], sizes[axis])
        for axis, (length, out) in enumerate(zip(image.shape[1:], out_size, strict=True))
    )
    classes = np.empty(out_size, np.int64)
    step = max(1, MAX_VALUES // (num_classes * out_size[1]))
    for top in range(0, out_size[0], step):
        total = np.zeros((num_classes, min(step, out_size[0] - top), out_size[1]), np.float32)
        for (y, x), values in logits.items():
            total += rows[y][top : top + step] @ values @ columns[x].T
        classes[top : top + step] = total.argmax(0)
    return classes


def _starts(length: int, window: int, stride: int) -> list[int]:
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def _matrices(length: int, out_length: int, window: int, starts: list[int], size: int) -> list[np.ndarray]:
    """For each window the matrix `(out_length, size)` from its logits along a side to the original image's pixels."""
    upsample = _linear(size, window)
    placed = []
    for start in starts:
        matrix = np.zeros((length, size))
        part = matrix[start : start + window]
        part[:] = upsample[: len(part)]
        placed.append(matrix)
    cover = np.zeros(length)
    for start in starts:
        cover[start : start + window] += 1
    resize = _linear(length, out_length)
    return [(resize @ (matrix / cover[:, None])).astype(np.float32) for matrix in placed]


def _linear(length: int, out_length: int) -> np.ndarray:
    """Linear interpolation `(out_length, length)` between the centres of entries."""
    places = np.clip((np.arange(out_length) + 0.5) * length / out_length - 0.5, 0, length - 1)
    return np.clip(1 - np.abs(places[:, None] - np.arange(length)), 0, None)
