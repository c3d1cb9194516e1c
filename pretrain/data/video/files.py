"""Video files decoded with PyAV, and folders of frames: how many frames there are, and some of them as pixels.

Containers are not trusted. The number of frames comes from the packets' presentation times, as many containers tell
none or a wrong one; so does the place of each frame. Files are opened, read and closed in the worker.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pretrain.common.errors import UserError
from pretrain.common.images import to_eight_bits

__all__ = [
    "FRAME_SUFFIXES",
    "VIDEO_SUFFIXES",
    "FrameFolder",
    "Video",
    "VideoFile",
    "open_video",
    "require_av",
    "write_video",
]

VIDEO_SUFFIXES = {".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ts"}
FRAME_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
PIXEL_FORMATS = {1: "gray", 3: "rgb24"}
IRREGULAR = 1.5
"""A file is of variable rate if the times between frames differ by more than this factor from their median."""


def require_av() -> Any:
    """PyAV, silent about damaged files; raises UserError if it is not installed."""
    try:
        import av
    except ImportError as e:
        raise UserError("Videos are decoded with PyAV, which is not installed: pip install -e '.[video]'.") from e
    av.logging.set_level(None)
    return av


class Video(Protocol):
    """An open video."""

    @property
    def num_frames(self) -> int:
        """How many frames it has, at least 1."""

    @property
    def is_variable(self) -> bool:
        """Whether the time between frames varies."""

    @property
    def is_rotated(self) -> bool:
        """Whether the container asks players to turn the picture; known once frames have been read."""

    def read(self, indices: Sequence[int], in_chans: int) -> np.ndarray:
        """Frames by index, uint8 `(N, H, W, in_chans)`, upright; the same frame may be asked for more than once."""


@contextmanager
def open_video(path: str | Path) -> Iterator[Video]:
    """Opens a video file or a folder of frames.

    Raises:
        UserError: it has no frames or no video stream; or PyAV is missing.
        OSError, ValueError: PyAV's, for files that it cannot open or decode.
    """
    path = Path(path)
    if path.is_dir():
        yield FrameFolder(path)
        return
    with require_av().open(str(path)) as container:
        yield VideoFile(container, str(path))


class VideoFile:
    """A video file's first video stream.

    A clip of evenly spaced frames is wanted, so frames are addressed on an even time line: index i of a file of
    variable rate is the frame that is shown at the i-th of `num_frames` evenly spaced times.
    """

    def __init__(self, container: Any, name: str):
        if not container.streams.video:
            raise UserError(f"{name} has no video stream.")
        self.container, self.name = container, name
        self.stream = container.streams.video[0]
        self.stream.codec_context.thread_count = 1  # workers share the cores already
        self.is_rotated = False
        self.times, self.counts = self._index()
        if not len(self.times):
            raise UserError(f"{name} has no frames.")
        self.num_frames = len(self.times)

    def _index(self) -> tuple[np.ndarray, bool]:
        """Presentation times in order, and whether they are mere counts.

        AVI files and bare streams tell no presentation times. Their frames are counted, and decoded from the start.
        """
        packets = [p for p in self.container.demux(self.stream) if p.size and not p.is_discard]
        if self.container.format.name == "avi" or any(p.pts is None for p in packets):
            return np.arange(len(packets)), True
        return np.unique([p.pts for p in packets]), False

    def _rewind(self) -> None:
        self.container.seek(0, backward=True, any_frame=False)

    @cached_property
    def is_variable(self) -> bool:
        steps = np.diff(self.times)
        if not len(steps):
            return False
        # Times are rounded to the container's time base, by less than one tick each.
        median = np.median(steps)
        return bool(steps.max() > IRREGULAR * median + 1 or steps.min() < median / IRREGULAR - 1)

    def _frames_at(self, indices: Sequence[int]) -> np.ndarray:
        """The times of the frames that are shown at places of the even time line."""
        if not self.is_variable:
            return self.times[np.asarray(indices)]
        even = np.linspace(self.times[0], self.times[-1], self.num_frames)
        return self.times[np.searchsorted(self.times, even[np.asarray(indices)], side="right") - 1]

    def read(self, indices: Sequence[int], in_chans: int) -> np.ndarray:
        wanted = self._frames_at(indices)
        times, places = np.unique(wanted, return_inverse=True)
        frames = self._decode(times.tolist(), PIXEL_FORMATS[in_chans])
        return np.stack([frames[place] for place in places])

    def _decode(self, times: list[int], pixel_format: str) -> list[np.ndarray]:
        """The frames that are shown at increasing times: where one is missing, the one before."""
        self._rewind()
        if not self.counts and times[0] > self.times[0]:
            self.container.seek(times[0], stream=self.stream, backward=True)
        found: list[np.ndarray] = []
        before = None
        for count, frame in enumerate(self.container.decode(self.stream)):
            time = count if self.counts else frame.pts
            if time is None:
                continue
            if before is None and time > times[0] > self.times[0]:  # the seek went too far
                return self._decode_from_start(times, pixel_format)
            while len(found) < len(times) and times[len(found)] < time:
                found.append(self._pixels(before if before is not None else frame, pixel_format))
            if len(found) < len(times) and times[len(found)] == time:
                found.append(self._pixels(frame, pixel_format))
            if len(found) == len(times):
                return found
            before = frame
        if before is None:
            raise UserError(f"{self.name} has no frame that can be decoded.")
        last = self._pixels(before, pixel_format)
        return found + [last] * (len(times) - len(found))

    def _decode_from_start(self, times: list[int], pixel_format: str) -> list[np.ndarray]:
        first = int(self.times[0])
        wanted = times if times[0] == first else [first, *times]
        return self._decode(wanted, pixel_format)[len(wanted) - len(times) :]

    def _pixels(self, frame: Any, pixel_format: str) -> np.ndarray:
        pixels = frame.to_ndarray(format=pixel_format)
        # The display matrix turns the picture counterclockwise by so many degrees.
        turns = round(frame.rotation / 90) % 4
        self.is_rotated |= turns > 0
        pixels = np.rot90(pixels, turns)
        return pixels if pixels.ndim == 3 else pixels[..., None]


class FrameFolder:
    """A folder with a picture for each frame, in the order of the numbers in their names."""

    is_variable = is_rotated = False

    def __init__(self, path: Path):
        files = [p for p in path.iterdir() if p.suffix.lower() in FRAME_SUFFIXES]
        if not files:
            raise UserError(f"{path} is a folder without frames ({', '.join(sorted(FRAME_SUFFIXES))}).")
        self.files = sorted(files, key=lambda p: [(len(n), n) for n in re.findall(r"\d+", p.stem)] or [(0, p.stem)])
        self.num_frames = len(self.files)

    def read(self, indices: Sequence[int], in_chans: int) -> np.ndarray:
        mode = {1: "L", 3: "RGB"}[in_chans]
        frames: dict[int, np.ndarray] = {}
        for index in indices:
            if index not in frames:
                with Image.open(self.files[index]) as image:
                    pixels = np.asarray(to_eight_bits(image).convert(mode))
                frames[index] = pixels if pixels.ndim == 3 else pixels[..., None]
        return np.stack([frames[index] for index in indices])


def write_video(frames: np.ndarray, path: str | Path, fps: int = 25, codec: str = "libx264", quality: int = 16) -> None:
    """Writes RGB frames `(N, H, W, 3)`, uint8, to a new file; the same frames give the same file.

    Args:
        path: its suffix says the container.
        codec: of FFmpeg. Sides must be even for the default.
        quality: the constant quantizer of x264, lower is better.
    """
    av = require_av()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.options = {"qp": str(quality)}  # a rate factor is computed in floats, whose rounding may differ
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
