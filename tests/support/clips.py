"""Tiny videos made with PyAV, whose frames tell their number."""

from pathlib import Path

import numpy as np

SIDE = 32


def numbered(count: int, side: int = SIDE) -> np.ndarray:
    """Frames `(count, side, side, 3)`: frame i is of brightness 8 * i, its left upper quarter is white."""
    frames = np.repeat(np.arange(count) * 8, side * side * 3).reshape(count, side, side, 3).astype(np.uint8)
    frames[:, : side // 2, : side // 2] = 255
    return frames


def number_of(frame: np.ndarray) -> int:
    """The number of a frame of :func:`numbered`, from its darkest quarter; codecs change brightness a little."""
    H, W, _ = frame.shape
    quarters = [frame[r * H // 2 :, c * W // 2 :][: H // 2, : W // 2] for r in (0, 1) for c in (0, 1)]
    return round(min(q.mean() for q in quarters) / 8)


def corner_of(frame: np.ndarray) -> tuple[int, int]:
    """Row and column of the white quarter."""
    H, W, _ = frame.shape
    brightness = frame.astype(float).mean(2).reshape(2, H // 2, 2, W // 2).mean((1, 3))
    return tuple(int(i) for i in np.unravel_index(brightness.argmax(), (2, 2)))


def write_numbered(path: Path, count: int, **options) -> Path:
    from pretrain.data.video.files import write_video

    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(numbered(count), path, **options)
    return path


def write_at_times(path: Path, times: list[int]) -> Path:
    """A video whose frames are shown at these milliseconds."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000)
        stream.height = stream.width = SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10"}
        for time, pixels in zip(times, numbered(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, degrees: int) -> Path:
    """Writes into an MP4 file that players have to turn it clockwise by 90, 180 or 270 degrees."""
    corner = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]

    def matrix(a: int, b: int, c: int, d: int) -> bytes:
        values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        return b"".join(value.to_bytes(4, "big", signed=True) for value in values)

    content = path.read_bytes()
    header, upright = content.index(b"tkhd"), matrix(1, 0, 0, 1)
    place = content.index(upright, header)
    path.write_bytes(content[:place] + matrix(*corner) + content[place + len(upright) :])
    return path
