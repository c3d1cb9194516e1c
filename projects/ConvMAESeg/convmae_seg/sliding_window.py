"""Class maps of images of any size from a network that looks at windows.

The usual way (mmsegmentation's "slide" mode): logits of every window are upsampled to its pixels, added up on a canvas
of the whole image, divided by how many windows cover each pixel, and resized to the original image. For 150 classes and
a photo of 24 megapixels that canvas and its resized copy are gigabytes.

All of these steps are linear, and each acts on rows and columns separately. So the logits of the original image are

    out = sum over windows (i, j) of  Y_i · L_ij · X_jᵀ

where `L_ij` are the logits as the head gives them, at a quarter of the resolution, and the matrices `Y_i` and `X_j`
upsample them, put them in their place, average and resize. That is what is computed here, for a piece of the image at a
time: no canvas is ever there. Windows run once each, when a piece first needs them, and are dropped after the last that
does.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import isqrt

import torch
import torch.nn.functional as F

from pretrain.common.errors import UserError

__all__ = ["Axis", "Piece", "SlidingWindow", "View", "pieces", "window_starts"]


Piece = tuple[slice, slice]
"""Rows and columns of the original image."""

EMPTY = slice(0, 0)


@dataclass(frozen=True)
class SlidingWindow:
    """How an image is looked at.

    Attributes:
        window_size: side of the windows in pixels; None takes the whole image at once. Images that are smaller are
            padded at the bottom and right, as in training.
        stride: distance of two windows in pixels; None is two thirds of the window, as published (341 for 512).
        window_batch_size: windows that go through the network together.
        max_logits: logits of a piece, at the resolution of the original image, which bounds the memory: a few
            tensors of this size exist at a time. Beside them those of the windows, at the head's resolution, are kept
            where pieces still need them: about two rows of windows across the image, and a batch of them.

    Raises:
        UserError: a number is not whole and positive, or there would be gaps between the windows.
    """

    window_size: int | None = 512
    stride: int | None = None
    window_batch_size: int = 4
    max_logits: int = 2**22

    def __post_init__(self) -> None:
        for name in ("window_size", "stride", "window_batch_size", "max_logits"):
            value = getattr(self, name)
            if value is None and name in ("window_size", "stride"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"model.inference.{name}={value} must be a whole number of at least 1.")
        if self.window_size is not None and self.stride is not None and self.stride > self.window_size:
            raise UserError(f"stride={self.stride} leaves gaps between windows of {self.window_size} pixels.")

    def window(self, height: int, width: int, size_divisibility: int, min_size: int) -> tuple[int, int]:
        """Sides of the windows of an image; without a `window_size`, of all of it, padded to what the network takes."""
        if self.window_size is not None:
            return self.window_size, self.window_size
        divisor = size_divisibility
        padded_height, padded_width = (max(-(-side // divisor) * divisor, min_size) for side in (height, width))
        return padded_height, padded_width

    def stride_of(self, window: int) -> int:
        return self.stride if self.window_size is not None and self.stride else max(1, window * 2 // 3)


class Axis:
    """What happens to the logits of windows along one side of the image.

    Args:
        length: pixels of the image that the network sees.
        out_length: pixels of the original image.
        window: pixels of a window; it may be longer than the image, which is then padded at the end.
        stride: distance of two windows.
        flip: the network sees the image mirrored.

    Attributes:
        starts: where windows begin in what the network sees, in their order in the original image.
        ranges: for each of them the pixels of the original image that it has a part in; :data:`EMPTY` for a window that
            lies between two pixels of a very small original.
    """

    def __init__(self, length: int, out_length: int, window: int, stride: int, flip: bool = False):
        self.length, self.out_length, self.window, self.flip = length, out_length, window, flip
        self.starts = window_starts(length, window, stride)[:: -1 if flip else 1]
        self._cover = torch.stack([self._place(torch.ones(1, window), start)[0] for start in self.starts])
        self.ranges = [_bounds(self._resize(cover[None])[0]) for cover in self._cover]
        self._matrices: list[torch.Tensor] = []
        self._touched: list[torch.Tensor] = []  # where they are not zero; on the CPU, so that no GPU is waited for

    def set_resolution(self, size: int, device: torch.device) -> None:
        """Makes the matrices for windows whose logits have `size` entries along this side."""
        if self._matrices:
            return
        upsample = _linear(torch.eye(size, dtype=torch.float64), self.window)
        average = 1 / self._cover.sum(0)
        for start, used in zip(self.starts, self.ranges, strict=True):
            matrix = self._resize(self._place(upsample, start) * average)[:, used].T.contiguous()  # (pixels, size)
            self._touched.append(matrix != 0)
            self._matrices.append(matrix.to(device, torch.float32))

    def weights(self, index: int, piece: slice) -> tuple[slice, slice, torch.Tensor] | None:
        """A window's part in a piece of the original image.

        Returns:
            which pixels of the piece it has a part in, which of the window's entries, and the matrix from these to
            those; None if there are none.
        """
        used = self.ranges[index]
        start, stop = max(used.start, piece.start), min(used.stop, piece.stop)
        if start >= stop:
            return None
        pixels = slice(start - used.start, stop - used.start)
        entries = _bounds(self._touched[index][pixels].any(0))
        return slice(start - piece.start, stop - piece.start), entries, self._matrices[index][pixels, entries]

    def _place(self, values: torch.Tensor, start: int) -> torch.Tensor:
        """A window's values `(N, window)` in its place on the image `(N, length)`; padding is cut off."""
        placed = values.new_zeros(len(values), self.length)
        part = placed[:, start : start + self.window]
        part.copy_(values[:, : part.shape[1]])
        return placed

    def _resize(self, values: torch.Tensor) -> torch.Tensor:
        """From the image that the network sees `(N, length)` to the original one `(N, out_length)`."""
        values = _linear(values, self.out_length)
        return values.flip(-1) if self.flip else values


class View:
    """An image as the network sees it, whose logits at the size of the original image come piece by piece.

    Args:
        image: normalised `(C, H, W)`.
        out_size: height and width of the original image.
        settings: how it is looked at.
        network: logits `(B, K, h, w)` of windows `(B, C, window, window)`.
        size_divisibility, min_size: what the sides of the network's input must be multiples of, and the least they
            may be.
        flip: the network sees the image mirrored; the logits are mirrored back.
    """

    def __init__(
        self,
        image: torch.Tensor,
        out_size: tuple[int, int],
        settings: SlidingWindow,
        network: Callable[[torch.Tensor], torch.Tensor],
        size_divisibility: int,
        min_size: int,
        flip: bool = False,
    ):
        self.network, self.batch_size, self.major = network, settings.window_batch_size, major_side(out_size)
        height, width = image.shape[-2:]
        self.window = settings.window(height, width, size_divisibility, min_size)
        self.axes = [
            Axis(length, out_length, side, settings.stride_of(side), flip=flip and i == 1)
            for i, (length, out_length, side) in enumerate(zip((height, width), out_size, self.window, strict=True))
        ]
        image = image.flip(-1) if flip else image
        self.image = F.pad(image, (0, max(0, self.window[1] - width), 0, max(0, self.window[0] - height)))
        places = product(*([i for i, used in enumerate(axis.ranges) if used != EMPTY] for axis in self.axes))
        self._waiting = deque(sorted(places, key=lambda place: (place[self.major], place[1 - self.major])))
        self._logits: dict[tuple[int, ...], torch.Tensor] = {}

    def logits(self, piece: Piece) -> torch.Tensor:
        """The logits `(K, h, w)` of a piece; pieces must come in the order of :func:`pieces`."""
        self._advance(piece[self.major])
        first = next(iter(self._logits.values()))
        out = first.new_zeros(len(first), *(side.stop - side.start for side in piece))
        with torch.autocast(out.device.type, enabled=False):
            for place, logits in self._logits.items():
                rows, columns = (axis.weights(i, side) for axis, i, side in zip(self.axes, place, piece, strict=True))
                if rows and columns:
                    out[:, rows[0], columns[0]] += rows[2] @ logits[:, rows[1], columns[1]] @ columns[2].T
        return out

    def _advance(self, piece: slice) -> None:
        """Runs the windows that a piece needs, and drops those that it and all later ones do not."""
        ranges = self.axes[self.major].ranges
        for place in [place for place in self._logits if ranges[place[self.major]].stop <= piece.start]:
            del self._logits[place]
        while self._waiting and ranges[self._waiting[0][self.major]].start < piece.stop:
            batch = [self._waiting.popleft() for _ in range(min(self.batch_size, len(self._waiting)))]
            logits = self.network(torch.stack([self._crop(place) for place in batch])).float()
            for axis, size in zip(self.axes, logits.shape[-2:], strict=True):
                axis.set_resolution(size, logits.device)
            self._logits |= zip(batch, logits, strict=True)

    def _crop(self, place: tuple[int, ...]) -> torch.Tensor:
        y, x = (axis.starts[i] for axis, i in zip(self.axes, place, strict=True))
        return self.image[:, y : y + self.window[0], x : x + self.window[1]]


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: every `stride` pixels, the last at the end of the image; no two coincide."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def major_side(size: tuple[int, int]) -> int:
    """The side along which pieces follow each other: the longer one, as what lies across it has to be kept."""
    return 0 if size[0] >= size[1] else 1


def pieces(num_classes: int, size: tuple[int, int], max_logits: int) -> Iterator[Piece]:
    """Pieces of an image of at most `max_logits` logits (but at least a pixel), in order along its longer side."""
    area = max(1, max_logits // num_classes)
    width = min(size[1], max(1, isqrt(area)))
    height = min(size[0], max(1, area // width))
    sides = [
        [slice(start, min(start + step, length)) for start in range(0, length, step)]
        for length, step in zip(size, (height, width), strict=True)
    ]
    major = major_side(size)
    for outer in sides[major]:
        for inner in sides[1 - major]:
            yield (outer, inner) if major == 0 else (inner, outer)


def _linear(values: torch.Tensor, length: int) -> torch.Tensor:
    """Resizes `(N, C)` to `(N, length)` linearly."""
    return F.interpolate(values.double()[None], size=length, mode="linear", align_corners=False)[0]


def _bounds(values: torch.Tensor) -> slice:
    """From the first entry that is not zero to the last; :data:`EMPTY` if all are."""
    touched = values.nonzero().flatten()
    return slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else EMPTY
