"""Which files are images, and greyscale images of more than 8 bits, which Pillow clips to white."""

import os
import stat

import numpy as np
from PIL import Image

from pretrain.common.errors import UserError

__all__ = [
    "IMAGE_SUFFIXES",
    "check_depth",
    "check_regular",
    "to_eight_bits",
]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
"""What image files end in, in lower case. Of an animation the first frame is read."""


def check_regular(path: str | os.PathLike) -> None:
    """Raises OSError for what would be waited for rather than read, such as a pipe."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # whoever opens it is told why
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is no regular file")


def to_eight_bits(image: Image.Image, file_format: str | None = None) -> Image.Image:
    """Scales a 16-bit greyscale image to 8 bits; returns any other image unchanged.

    Pillow would clip what is above 255. The lower byte is dropped, as Pillow drops that of colour images of 16 bits.

    Args:
        image: as Pillow opens it.
        file_format: Pillow's name of the file's format, for an image that no longer knows.

    Raises:
        UserError: its pixels have 32 bits.
    """
    check_depth(image, file_format)
    if not _has_sixteen_bits(image, file_format):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def check_depth(image: Image.Image, file_format: str | None = None) -> None:
    """Raises UserError for a grey image of 32 bits, which does not tell what is white; decodes nothing."""
    if image.mode in ("I", "F") and not _has_sixteen_bits(image, file_format):
        raise UserError("its pixels have 32 bits, whose value range is undefined; save it with 8 or 16 bits")


def _has_sixteen_bits(image: Image.Image, file_format: str | None) -> bool:
    # Of PGM files, and in earlier versions of PNG, Pillow makes 32 bits that hold 16.
    return image.mode.startswith("I;16") or (image.mode == "I" and (file_format or image.format) in ("PNG", "PPM"))
