"""Label maps: pictures whose pixels are class numbers, in whatever convention a data set keeps them on disk."""

import os

import numpy as np
from detectron2.data import Metadata
from PIL import Image

from pretrain.common.errors import UserError
from pretrain.common.images import check_regular

__all__ = ["IGNORED", "LABEL_SUFFIXES", "MAX_CLASSES", "check_same_size", "read_label_map", "to_classes"]

IGNORED = 255
"""What :func:`read_label_map` gives for pixels without a class."""

MAX_CLASSES = 254
"""Class indices, and labels counted from 1, must stay below 255."""

LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")

GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L")
"""Pillow's modes of one number a pixel. A picture with a palette ("P") holds one as well, the index of its colour."""

SCALED = ("L;2", "L;4")
"""Grey PNGs of 2 and 4 bits, whose numbers Pillow stretches to 0…255."""


def read_label_map(path: str | os.PathLike, metadata: Metadata) -> np.ndarray:
    """The classes of a picture's pixels.

    Args:
        path: a grey picture of 1, 8, 16 or 32 bits, or one with a palette, whose indices then are the labels.
        metadata: of the data set: `stuff_classes`; `reduce_zero_label`, true where labels 1…K are the classes and 0 is
            ignored (255 is, too), false (the default) where labels 0…K-1 are; and for the latter `ignore_label`, 255
            by default.

    Returns:
        int64 `(H, W)`: 0…K-1, and 255 for pixels without a class.

    Raises:
        UserError: the file cannot be read, is no label map, or holds a label that is neither a class nor ignored.
    """
    return to_classes(_read(path), path, metadata)


def to_classes(labels: np.ndarray, path: str | os.PathLike, metadata: Metadata) -> np.ndarray:
    """Labels as on disk, integers of any shape, to class indices; otherwise as :func:`read_label_map`."""
    count, first = len(metadata.stuff_classes), int(metadata.get("reduce_zero_label", False))
    ignored = labels == (IGNORED if first else metadata.get("ignore_label", IGNORED))
    if first:
        ignored |= labels == 0
    classes = labels.astype(np.int64) - first
    unknown = labels[~ignored & ((classes < 0) | (classes >= count))]
    if unknown.size:
        raise UserError(f"{path} holds label {unknown.max()}, but {_convention(count, first)}")
    classes[ignored] = IGNORED
    return classes


def _convention(count: int, first: int) -> str:
    if first:
        return (
            f"the {count} classes are 1 to {count} and ignored pixels 0 (data.ignore_label=0); name all classes, and "
            "for labels that count from 0 choose data.ignore_label=255."
        )
    return (
        f"the {count} classes are 0 to {count - 1} and ignored pixels 255 (data.ignore_label=255); name all classes, "
        "and for labels that count from 1 choose data.ignore_label=0."
    )


def check_same_size(path: str, label_size: tuple[int, int], image: str, image_size: tuple[int, int]) -> None:
    """Raises UserError unless label map and image have the same (height, width)."""
    if tuple(label_size) != tuple(image_size):
        raise UserError(
            f"Label map {path} has {label_size[1]}x{label_size[0]} pixels, but its image {image} has "
            f"{image_size[1]}x{image_size[0]}; a label map must have the size of its image."
        )


def _read(path: str | os.PathLike) -> np.ndarray:
    """Integers `(H, W)` as they are on disk."""
    try:
        check_regular(path)
        with Image.open(path) as picture:
            mode, kind = picture.mode, picture.format
            stored = picture.tile[0].args if picture.tile else mode
            labels = np.asarray(picture)
    except FileNotFoundError as e:
        raise UserError(f"Label map {path} does not exist.") from e
    except Exception as e:  # Pillow raises a dozen types for damaged files
        raise UserError(f"Label map {path} cannot be read as a picture: {e}") from e
    if kind == "JPEG":
        raise UserError(f"Label map {path} is a JPEG, which does not keep class numbers; save label maps as PNG.")
    if mode not in (*GREY_MODES, "P"):
        raise UserError(
            f"{path} is a picture in {mode}, not a label map of one class number a pixel; replace each colour by the "
            "number of its class and save a grey PNG of 8 bits, or one with a palette whose indices are the classes."
        )
    if stored in SCALED:
        raise UserError(f"Label map {path} is a grey PNG of {stored[-1]} bits, which is not read right; save 8 bits.")
    return labels.astype(np.int64)
