"""A folder of images and one of instance masks as PNG: an id per pixel, or one file for each object."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lazyrun.data.formats.content import AnnotatedSet, CocoBuilder, listed
from lazyrun.data.formats.files import Folder
from lazyrun.data.formats.source import Source
from lazyrun.data.formats.split_names import part_of_split
from pretrain.common.errors import UserError

__all__ = ["mask_files", "read_masks"]

NAME = "instance masks"
MASK_FOLDERS = ("masks", "mask")
IMAGE_FOLDERS = ("images", "image")
LOSSLESS = (".png", ".tif", ".tiff", ".bmp")


def _mask_parts(path: Path) -> int | None:
    """Where a path has its folder of masks."""
    parts = [p.casefold() for p in path.parent.parts]
    return next((i for i in reversed(range(len(parts))) if parts[i] in MASK_FOLDERS), None)


def mask_files(folder: Folder) -> list[Path]:
    """Masks in folders `masks` that have a folder `images` beside them."""
    found = []
    beside: dict[Path, bool] = {}
    for file in folder.images:
        index = _mask_parts(file)
        if index is None:
            continue
        parent = Path(*file.parts[:index])
        if parent not in beside:
            beside[parent] = any(
                p.is_dir() and p.name.casefold() in IMAGE_FOLDERS for p in (parent.iterdir() if parent.is_dir() else ())
            )
        if beside[parent] and file.is_relative_to(folder.path):
            found.append(file)
    return found


def read_masks(source: Source) -> AnnotatedSet:
    """Objects of the one class `object`, each with its mask; 0, or black, is background.

    `images/a.jpg` belongs to `masks/a.png`, whose pixels hold the number of their object (grey of 8 or 16 bits, a
    palette, or a colour for each object); or to the files in `masks/a/`, one for each object; or, where a folder
    `images` has one image alone, to all files in `masks/` beside it, as in the Data Science Bowl 2018.

    Raises:
        UserError: a mask is lossy, of another size than its image, or has no image, or the masks are black and white.
    """
    assert source.folder is not None, "masks are recognised in folders alone"
    masks = set(source.files)
    images, part = part_of_split(
        [f for f in source.folder.images if f not in masks and _is_image(f)], source.folder.path, source.split
    )
    builder = CocoBuilder(["object"])
    bare, used = [], set()
    most = 0
    for file in images:
        files, numbered = _masks_of(file, masks)
        if not files:
            bare.append(file)
            continue
        used.update(files)
        image = builder.image(file, None, str(file))
        if image is None:
            continue
        for index, (name, mask) in enumerate(_objects(files, numbered, image), start=1):
            builder.add(image, "object", f"{name}: object {index}", mask=mask)
            most = max(most, index)
    if part:
        builder.notes.append(f"its part {part!r}, {len(images)} images")
    else:
        _check_strays(masks - used)
    if bare:
        builder.notes.append(f"{len(bare)} images without mask are left out ({listed(f.name for f in bare)})")
    if most == 1:
        _check_instances(source.files[0], sorted(used))
    return builder.finish(source.path, NAME)


def _is_image(file: Path) -> bool:
    return any(p.casefold() in IMAGE_FOLDERS for p in file.parent.parts)


def _masks_of(image: Path, masks: set[Path]) -> tuple[list[Path], bool]:
    """The masks of an image, and whether it is one with a number for each object."""
    parts = list(image.parent.parts)
    index = next(i for i in reversed(range(len(parts))) if parts[i].casefold() in IMAGE_FOLDERS)
    for name in (n for n in sorted({f.parts[index] for f in masks if len(f.parts) > index})):
        if name.casefold() not in MASK_FOLDERS:
            continue
        folder = Path(*parts[:index], name, *parts[index + 1 :])
        single = [f for f in (folder / f"{image.stem}{s}" for s in (*LOSSLESS, ".jpg", ".jpeg")) if f in masks]
        if single:
            return single[:1], True
        several = sorted(f for f in masks if f.parent == folder / image.stem)
        if not several and len([f for f in image.parent.iterdir() if not f.name.startswith(".")]) == 1:
            several = sorted(f for f in masks if f.parent == folder)
        if several:
            return several, False
    return [], False


def _objects(files: list[Path], numbered: bool, image: dict) -> Iterator[tuple[Path, np.ndarray]]:
    """Masks bool `(height, width)` of an image's objects, with the files they are in."""
    for file in files:
        numbers = _numbers(file)
        if numbers.shape != (image["height"], image["width"]):
            raise UserError(
                f"{file}: a mask of {numbers.shape[1]}x{numbers.shape[0]} for an image of {image['width']}x"
                f"{image['height']}; save it in the image's size."
            )
        if not numbered:
            yield file, numbers > 0
            continue
        for number in np.unique(numbers[numbers > 0]):
            yield file, numbers == number


def _numbers(file: Path) -> np.ndarray:
    """Numbers of the objects `(height, width)` in a mask's pixels."""
    if file.suffix.lower() not in LOSSLESS:
        raise UserError(f"{file}: a mask must be stored without loss, as PNG; JPEG changes the numbers of objects.")
    try:
        with Image.open(file) as opened:
            plain = opened.mode in ("1", "L", "P", "I", "F", "RGB") or opened.mode.startswith("I;16")
            pixels = np.asarray(opened if plain else opened.convert("RGB"))
    except Exception as e:  # Pillow raises a dozen types for damaged files
        raise UserError(f"{file} cannot be read as a mask: {e}.") from e
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels) & (pixels == np.round(pixels))).all():
        raise UserError(f"{file}: a mask holds the number of an object in each pixel, not fractions.")
    if pixels.ndim == 3:
        pixels = pixels.astype(np.int64) @ np.array([1, 256, 65536])[: pixels.shape[2]]
    return pixels.astype(np.int64)


def _check_strays(strays: set[Path]) -> None:
    if strays:
        raise UserError(f"{min(strays)}: its image is missing; put it into the folder of images or remove the mask.")


def _check_instances(first: Path, files: list[Path]) -> None:
    """Raises UserError for masks of one number that have separate areas: these do not tell objects apart."""
    for file in files:
        areas = cv2.connectedComponents((_numbers(file) > 0).astype(np.uint8))[0] - 1
        if areas > 1:
            raise UserError(
                f"{file}: {areas} separate areas of one number, as in all masks of {first.parent}: such masks do not "
                "tell objects apart; number the objects, or save one mask for each."
            )
