"""What opening an image file tells: size, kind of pixels, whether it can be decoded, a hash of its bytes."""

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from pretrain.common.errors import UserError
from pretrain.common.images import check_depth

__all__ = ["MISSING", "ImageFacts", "Version", "inspect_image", "upright_size", "version_of"]

ON_THEIR_SIDE = (5, 6, 7, 8)
"""EXIF orientations of images whose width and height change places."""

SEVERAL_PICTURES = ("MPO",)
"""Formats in which cameras put more pictures behind the photo; they are no animations."""

MISSING = "there is no such file"
"""The fault of a file that is not there."""

Version = tuple[int, int]
"""Time of the last change in ns, and size in bytes: what tells one version of a file from another."""


@dataclass(frozen=True)
class ImageFacts:
    """One image file.

    Attributes:
        width, height: in pixels, upright, as the mapper reads it; 0 if it is no image.
        mode: Pillow's name of the kind of pixels, such as "RGB", "L" or "I;16".
        format: Pillow's name of the format, such as "JPEG".
        orientation: as EXIF data give it; 1 is upright.
        frames: more than 1 in animations and files with several pages.
        transparent: it has an alpha channel or a transparent colour.
        digest: hash of its bytes.
        fault: why it cannot be read, or "".
        too_deep: the fault is that its pixels have 32 bits.
    """

    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    orientation: int = 1
    frames: int = 1
    transparent: bool = False
    digest: str = ""
    fault: str = ""
    too_deep: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def version_of(path: Path) -> Version | None:
    """The version of a file; None if there is none, or it is a folder, pipe or the like."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # a name with a null character is a ValueError
        return None
    return (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None


def inspect_image(path: Path) -> tuple[ImageFacts, Version | None]:
    """Opens and decodes an image file.

    Returns:
        its facts, and the version that they are of; None for a file that the system does not let us read, or that was
        changed meanwhile, so that next time may tell otherwise.
    """
    if version_of(path) is None:
        return ImageFacts(fault=MISSING), None
    try:
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            file.seek(0)
            facts = _decode(file, digest)
            after = os.fstat(file.fileno())
    except OSError as e:
        return ImageFacts(fault=e.strerror or str(e)), None
    unchanged = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    return facts, (before.st_mtime_ns, before.st_size) if unchanged else None


def _decode(file: BinaryIO, digest: str) -> ImageFacts:
    known: dict[str, Any] = {"digest": digest}
    try:
        with Image.open(file) as image:
            known |= _header(image)
            check_depth(image)
            image.draft("RGB", (1, 1))  # JPEGs are decoded at an eighth: enough to find those that were cut off
            image.load()
    except UserError as e:
        return ImageFacts(**known, fault=str(e), too_deep=True)
    except Exception as e:  # Pillow raises a dozen types for damaged files
        return ImageFacts(**known, fault=_reason(e))
    return ImageFacts(**known)


def _header(image: Image.Image) -> dict[str, Any]:
    width, height = upright_size(image)
    frames = 1
    if image.format not in SEVERAL_PICTURES:
        with suppress(Exception):  # a later frame is damaged; the first alone is read
            frames = int(getattr(image, "n_frames", 1))
    return {
        "width": width,
        "height": height,
        "mode": image.mode,
        "format": image.format or "",
        "orientation": _orientation(image),
        "frames": frames,
        "transparent": image.has_transparency_data,
    }


def _reason(error: Exception) -> str:
    """The first line of an error's message, without the address of the object that was read."""
    lines = str(error).splitlines()
    text = lines[0] if lines else type(error).__name__
    return "it is no image of a known format" if text.startswith("cannot identify image file") else text


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a photo turned as its EXIF data say, as detectron2 reads it; nothing is decoded."""
    return image.size[::-1] if _orientation(image) in ON_THEIR_SIDE else image.size


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data raise many types, and then detectron2 does not turn the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
