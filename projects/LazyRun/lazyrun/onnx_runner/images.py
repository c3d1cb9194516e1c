"""Images as exported models take them, with Pillow and NumPy alone.

The steps of :attr:`Metadata.resizing` and what they stand for:

  `shortest_edge`  detectron2's ResizeShortestEdge: `short_edge` pixels, at most `max_size` for the longer side
  `keep_ratio`     :class:`convmae_seg.augmentation.ResizeKeepRatio`: `short_edge`, `aspect`, `enlarge`
  `pad`            at the bottom and right, to `height` and `width`, with `value`
  `centre_crop`    bicubic to a shorter side of `short_edge`, then the centre of `height` and `width`
"""

import glob
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lazyrun.onnx_runner.metadata import OnnxFileError

__all__ = ["find_images", "prepare", "read_rgb"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
"""Those of `pretrain.common.images`, which cannot be imported without PyTorch."""


def find_images(inputs: Sequence[str], leave_out: Path) -> list[Path]:
    """Files that are named, the images of folders and below, and what patterns match; each once, in a fixed order.

    Raises:
        OnnxFileError: an input names nothing.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        path = Path(name)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        else:
            files = sorted(Path(p) for p in glob.glob(name, recursive=True) if Path(p).is_file())
        files = [p for p in files if leave_out.resolve() not in p.resolve().parents]
        if not files:
            raise OnnxFileError(f"{name} names no image; name files, folders or patterns.")
        found |= dict.fromkeys(files)
    return list(found)


def read_rgb(path: str | Path) -> np.ndarray:
    """An image file as RGB uint8 `(H, W, 3)`, turned upright as its EXIF data say.

    Raises:
        OnnxFileError: it cannot be read as an image, or has 32 bits a pixel.
    """
    try:
        with Image.open(path) as image:
            image.load()
            sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
            if image.mode in ("I", "F") and not sixteen_bits:
                raise OnnxFileError("its pixels have 32 bits, whose value range is undefined")
            with suppress(Exception):  # damaged EXIF data raise many types; the image itself has been read
                ImageOps.exif_transpose(image, in_place=True)
            upright = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if sixteen_bits else image
            return np.asarray(upright.convert("RGB"))
    except Exception as e:  # Pillow raises a dozen types for damaged files
        raise OnnxFileError(f"{path} cannot be read as an image: {e}") from e


def prepare(image: np.ndarray, steps: Sequence[dict[str, Any]], input_format: str) -> np.ndarray:
    """An image as the model takes it.

    Args:
        image: RGB uint8 `(H, W, 3)`.
        steps: of :attr:`Metadata.resizing`.
        input_format: "RGB" or "BGR".

    Returns:
        float32 `(3, H', W')` in [0, 255].

    Raises:
        OnnxFileError: the image is so narrow that a step leaves nothing of it.
    """
    if input_format == "BGR":
        image = image[..., ::-1]
    for step in steps:
        options = {key: value for key, value in step.items() if key != "step"}
        image = _STEPS[step["step"]](np.ascontiguousarray(image), **options)
        if not image.size:
            raise OnnxFileError("The image is too narrow to be brought to the size that the model takes.")
    # (H, W, 3) -> (3, H, W)
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)


def _shortest_edge(image: np.ndarray, short_edge: int, max_size: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = short_edge / min(height, width)
    height, width = (short_edge, scale * width) if height < width else (scale * height, short_edge)
    if max(height, width) > max_size:
        scale = max_size / max(height, width)
        height, width = height * scale, width * scale
    size = int(width + 0.5), int(height + 0.5)
    if not min(size):
        return image[:0]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _keep_ratio(image: np.ndarray, short_edge: int, aspect: float, enlarge: bool) -> np.ndarray:
    height, width = image.shape[:2]
    scale = min(int(short_edge * aspect) / max(height, width), short_edge / min(height, width))
    if scale >= 1 and not enlarge:
        return image
    size = [max(1, int(side * scale + 0.5)) for side in (height, width)]
    return _bilinear(image, size)


def _bilinear(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Bilinear without smoothing, in the whole numbers that OpenCV computes with (INTER_LINEAR of 8 bits)."""
    values = image.astype(np.int64)
    low, high, near, far = _weights(size[1], image.shape[1])
    values = values[:, low] * near[:, None] + values[:, high] * far[:, None]
    low, high, near, far = _weights(size[0], image.shape[0])
    parts = [(w[:, None, None] * (values[rows] >> 4)) >> 16 for rows, w in ((low, near), (high, far))]
    return ((parts[0] + parts[1] + 2) >> 2).astype(np.uint8)


def _weights(length: int, sides: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each new pixel along a side its two old ones, and their weights in parts of 2048."""
    places = ((np.arange(length) + 0.5) * (sides / length) - 0.5).astype(np.float32)
    places = places.clip(0, sides - 1)
    low = places.astype(int)
    part = places - low
    return low, np.minimum(low + 1, sides - 1), np.rint((1 - part) * 2048).astype(int), np.rint(part * 2048).astype(int)


def _pad(image: np.ndarray, height: int, width: int, value: float) -> np.ndarray:
    padded = np.full((height, width, 3), value, np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def _centre_crop(image: np.ndarray, short_edge: int, height: int, width: int) -> np.ndarray:
    rows, columns = image.shape[:2]
    long_edge = int(short_edge * max(rows, columns) / min(rows, columns))
    size = (short_edge, long_edge) if columns <= rows else (long_edge, short_edge)
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    top, left = (round((side - crop) / 2) for side, crop in zip(image.shape, (height, width), strict=False))
    return image[top : top + height, left : left + width]


_STEPS: dict[str, Callable[..., np.ndarray]] = {
    "shortest_edge": _shortest_edge,
    "keep_ratio": _keep_ratio,
    "pad": _pad,
    "centre_crop": _centre_crop,
}
