"""COCO JSON: a file, or a folder with one, and images beside it, in sibling folders, or where it says itself."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lazyrun.data.coco.content import load
from lazyrun.data.coco.findings import Findings
from lazyrun.data.formats.content import AnnotatedSet
from lazyrun.data.formats.source import Source
from lazyrun.data.images import is_file
from pretrain.common.errors import UserError

__all__ = ["NAME", "looks_like_coco", "read_coco", "stated_root"]

NAME = "COCO JSON"
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "data")


def looks_like_coco(content: object) -> bool:
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def stated_root(content: dict[str, Any]) -> Path | None:
    """The image folder that files written by this project state."""
    info = content.get("info")
    root = info.get("image_root") if isinstance(info, dict) else None
    return Path(root) if isinstance(root, str) else None


def read_coco(source: Source) -> AnnotatedSet:
    """The cleaned content of the file (:mod:`lazyrun.data.coco`), with file names that are found elsewhere.

    Raises:
        UserError: it is not COCO JSON, lists no images or no categories, or the folder of its images is not clear.
    """
    file = source.files[0]
    try:
        content = load(file)
    except UserError as e:
        raise UserError(f"{file} {e}.") from e
    if not content.images:
        raise UserError(f"{file} lists no images; check that it is the right file.")
    if not content.categories:
        raise UserError(f"{file} lists no categories.")
    faults = [f"{file}: {sentence}" for sentence in content.faults.sentences()]
    root, images = (file.parent, []) if faults else _place_images(source, file, content.images, faults)
    mended = Findings()
    mended.update(content.mended)
    mended.update(content.degenerate)
    if faults:
        return AnnotatedSet(source.path, NAME, root, [], [], [], json_file=file, mended=mended, faults=faults)
    notes = [sentence.rstrip(".") for sentence in content.mended.sentences()]
    json_file = file if images is content.images else None
    found = (images, content.annotations, content.categories, notes)
    return AnnotatedSet(source.path, NAME, root, *found, json_file=json_file, left_out=content.left_out, mended=mended)


def _place_images(source: Source, file: Path, images: list[dict], faults: list[str]) -> tuple[Path, list[dict]]:
    """The image folder, and the images with file names in it: the same list if nothing had to change.

    Images that are missing are added to the faults.
    """
    names = [image["file_name"] for image in images]
    stated = stated_root(source.parsed)
    for candidates in ([stated] if stated else [], *_candidates(file)):
        holding = [folder for folder in candidates if all(is_file(folder / name) for name in names)]
        if len(holding) > 1:
            raise UserError(
                f"{file}: its images may be those of {holding[0]} or of {holding[1]}; name the folder with "
                f"data.…_json={file} data.…_images=FOLDER in place of the path."
            )
        if holding:
            return holding[0], images
    found = []
    for name in names:
        try:
            found.append(source.finder.find(name, file))
        except UserError as e:
            faults.append(str(e))
    if faults:
        return file.parent, []
    root = source.finder.path
    if not all(f.is_relative_to(root) for f in found):
        root = root.parent
    if len(set(found)) < len(found):
        twice = next(n for n, f in zip(names, found, strict=True) if found.count(f) > 1)
        raise UserError(f"{file}: {twice} and another of its images are the same file; keep one of them.")
    return root, [image | {"file_name": f.relative_to(root).as_posix()} for image, f in zip(images, found, strict=True)]


def _candidates(file: Path) -> Iterator[list[Path]]:
    """Folders that may hold the images of an annotation file, in groups of equal likelihood."""
    near = [p for folder in (file.parent, file.parent.parent) for p in _subfolders(folder)]
    below = [p for folder in near if folder.name.casefold() in IMAGE_FOLDERS for p in _subfolders(folder)]
    yield [file.parent]
    # instances_val2017.json belongs to val2017 or images/val2017.
    words = set(re.split(r"[^a-z0-9]+", file.stem.casefold()))
    yield [p for p in dict.fromkeys(near + below) if p.name.casefold() in words]
    yield [p for p in near if p.name.casefold() in IMAGE_FOLDERS and p.parent == file.parent]
    yield [p for p in near if p.name.casefold() in IMAGE_FOLDERS and p.parent == file.parent.parent]
    yield [file.parent.parent]
    yield list(dict.fromkeys(near + below))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
