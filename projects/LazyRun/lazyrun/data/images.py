"""Reading image files."""

import os
from contextlib import suppress

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps

from lazyrun.data.corrupt import CorruptImageError
from pretrain.common.images import check_regular, to_eight_bits

__all__ = ["LARGEST_SIDE", "decode_image", "is_file", "read_image"]

LARGEST_SIDE = 2**16
"""Pixels of the longest side that an annotation file may state: JPEG's, and far more than fits into memory."""


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is such a file, also for names that no file system takes."""
    try:
        return os.path.isfile(path)
    except (OSError, ValueError):
        return False


def read_image(path: str | os.PathLike, image_format: str) -> np.ndarray:
    """As :func:`decode_image`; whatever is wrong with the file is a CorruptImageError that names it."""
    try:
        return decode_image(path, image_format)
    except Exception as e:  # Pillow raises a dozen types for damaged files
        raise CorruptImageError(f"{path} cannot be read as an image: {e}") from e


def decode_image(path: str | os.PathLike, image_format: str) -> np.ndarray:
    """An image file as detectron2 reads it, but grey ones of 16 bits with their whole range.

    Args:
        path: file that Pillow reads.
        image_format: order of the channels, such as "RGB" or "BGR".

    Returns:
        uint8 `(H, W, 3)`, turned upright as its EXIF data say.

    Raises:
        OSError, ValueError and others: the file is missing, damaged, no image, or has 32 bits a pixel.
    """
    check_regular(path)
    with PathManager.open(os.fspath(path), "rb") as file, Image.open(file) as image:
        file_format = image.format
        image.load()
        with suppress(Exception):  # damaged EXIF data raise many types; the image itself has been read
            ImageOps.exif_transpose(image, in_place=True)
        return convert_PIL_to_numpy(to_eight_bits(image, file_format), image_format)
