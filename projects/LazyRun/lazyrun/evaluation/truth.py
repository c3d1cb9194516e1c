"""Ground truth in any annotation format, and its images and classes by name."""

import json
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazyrun.data.coco.content import clean
from lazyrun.data.coco.identity import IdMap, whole_number
from lazyrun.data.coco.reading import LISTS, coco_lists, parse_json
from lazyrun.data.formats import read_dataset
from lazyrun.data.formats.coco import NAME as COCO
from lazyrun.data.formats.registry import format_of
from pretrain.common.errors import UserError

__all__ = [
    "Truth",
    "check_entries",
    "image_ids",
    "match_files",
    "read_annotations",
    "read_listed",
    "read_truth",
    "use_ids_of",
]

logger = logging.getLogger(__name__)

NEEDED = {
    "images": ("id", "file_name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""The lists of an annotation file, in the order of :func:`coco_lists`, and the keys of their entries."""


@dataclass(frozen=True)
class Truth:
    """What detections are compared with.

    Attributes:
        path: what was named.
        dataset: lists `images`, `annotations` and `categories` as in COCO files, cleaned as for the evaluation;
            `left_out` lists annotations that do not count.
        root: folder that the images' `file_name` is relative to.
    """

    path: Path
    dataset: dict[str, list[dict]]
    root: Path


def read_truth(path: Path, images: Path | None = None) -> Truth:
    """Reads annotations as `data.val=PATH` does.

    Args:
        path: file or folder in any of :data:`lazyrun.data.formats.FORMATS`.
        images: image folder of a COCO file, whose images need not exist; by default it is looked for. Other formats
            find their images themselves.

    Raises:
        UserError: it is missing or in no format that is read, or something in it cannot be used.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist.")
    if images is not None and path.is_file() and path.suffix.lower() == ".json":
        content = _parsed(path)
        kind = format_of(content)
        if kind in (None, COCO):
            return Truth(path, _cleaned(path, content), images)
    found = read_dataset(path, "val")
    dataset = {"images": found.images, "annotations": found.annotations, "categories": found.categories}
    return Truth(path, {**dataset, "left_out": found.left_out}, found.root)


def _parsed(path: Path) -> Any:
    try:
        return parse_json(path)
    except UserError as e:
        raise UserError(f"{path} {e}.") from e


def read_annotations(path: Path) -> dict[str, list[dict]]:
    """A COCO annotation file, cleaned as it is for the evaluation, as :attr:`Truth.dataset`.

    Raises:
        UserError: it is missing, not JSON, or what it lists is incomplete or cannot be used.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    return _cleaned(path, _parsed(path))


def _cleaned(path: Path, content: Any) -> dict[str, list[dict]]:
    try:
        lists = coco_lists(content)
    except UserError as e:
        raise UserError(f"{path} {e}.") from e
    if not lists[0]:
        raise UserError(f"{path} lists no images; check that it is the right file.")
    for (name, keys), entries in zip(NEEDED.items(), lists, strict=True):
        check_entries(path, name, entries, keys)
    _check_references(path, *lists)
    try:
        cleaned = clean(*lists, sizes_needed=False)
    except UserError as e:
        raise UserError(f"{path}: {e}.") from e
    cleaned.check(path)
    return {key: getattr(cleaned, key) for key in (*LISTS, "left_out")}


def _check_references(path: Path, images: list[dict], annotations: list[dict], categories: list[dict]) -> None:
    numbers, category_ids = IdMap([i["id"] for i in images]), {whole_number(c["id"]) for c in categories}
    for a in annotations:
        if numbers.get(a["image_id"]) is None:
            raise UserError(f"{path}: the image_id {a['image_id']} is not among its images.")
        if whole_number(a["category_id"]) not in category_ids:
            raise UserError(f"{path}: the category_id {a['category_id']} is not among its categories.")


def check_entries(path: Path, name: str, entries: list[dict], keys: Sequence[str]) -> None:
    """Raises UserError unless all entries of a file's list have these keys, and boxes of four numbers if any.

    Args:
        path: the file, for messages.
        name: of the list, for messages.
    """
    for entry in entries:
        lacking = [key for key in keys if entry.get(key) is None]
        if lacking:
            raise UserError(f"{path}: one of its {name} has no {', '.join(lacking)}: {json.dumps(entry)[:100]}")
        box = entry.get("bbox", [0] * 4)
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
            raise UserError(f"{path}: the bbox {json.dumps(box)[:100]} is not four numbers: x, y, width, height.")


def match_files(files: Sequence[Path], truth: Truth, ids: Sequence[Any], refusal: str) -> list[dict]:
    """The image of a data set for each file: the one whose path agrees with most of the file's, from the end.

    Args:
        files: all their parts must agree with the image's path, or include the whole name in the data set.
        truth: the data set.
        ids: of the files, for images that share a file; those of the data set, or any others.
        refusal: how messages begin.

    Raises:
        UserError: a file is none of the images, or may be several.
    """
    index, found = _NameIndex(truth), []
    for file, number in zip(files, ids, strict=True):
        best = index.best(file.parts)
        if len(best) > 1:
            best = [i for i in best if i.get("source_id", i["id"]) == number] or best
        if len(best) != 1:
            what = f"{file} is not among those of" if not best else f"{file} may be any of several in"
            raise UserError(f"{refusal}{what} {truth.path}.")
        found.append(best[0])
    return found


class _NameIndex:
    """Images of a data set by the ends of their paths: names such as 000001.jpg come in every folder of some sets."""

    def __init__(self, truth: Truth):
        # By whether these are all parts of the name in the data set, and the parts themselves.
        self._ends: defaultdict[tuple[bool, tuple[str, ...]], list[tuple[dict, tuple[str, ...]]]] = defaultdict(list)
        for image in truth.dataset["images"]:
            name = Path(image["file_name"])
            parts = Path(os.path.abspath(truth.root / name)).parts
            whole = len(name.parts)
            for count in range(1, min(whole, len(parts)) + 1):  # a name with .. has more parts than its path may have
                self._ends[count == whole, parts[-count:]].append((image, parts))

    def best(self, file: tuple[str, ...]) -> list[dict]:
        """Of the images whose name ends a path of these parts, or whose path they end, those that agree most."""
        ranked: defaultdict[int, list[dict]] = defaultdict(list)
        for key in [(False, file), *((True, file[-count:]) for count in range(1, len(file) + 1))]:
            for image, parts in self._ends.get(key, ()):
                ranked[_agreeing(file, parts)].append(image)
        return ranked[max(ranked)] if ranked else []


def _agreeing(one: Sequence[str], other: Sequence[str]) -> int:
    """Parts that agree, counted from the end."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def read_listed(path: Path) -> Truth:
    """The images and classes of an annotation file alone, whose objects and image files do not matter.

    Of COCO files everything but the names and ids is left unread, so those of test sets without annotations will do.

    Raises:
        UserError: it is missing or in no format that is read, or lists no images.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist.")
    if path.is_dir() or path.suffix.lower() != ".json" or format_of(content := _parsed(path)) not in (None, COCO):
        found = read_dataset(path)
        images = [{**i, "id": i.get("source_id", i["id"])} for i in found.images]
        return Truth(path, {"images": images, "categories": found.categories}, found.root)
    try:
        images = [{"id": entry["id"], "file_name": str(entry["file_name"])} for entry in content["images"]]
        categories = [{"id": c["id"], "name": c["name"]} for c in content.get("categories", ())]
        {image["id"]: image for image in images}, {c["name"]: c for c in categories}  # neither is a list
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is not a COCO annotation file: its images or categories lack ids or names.") from e
    return Truth(path, {"images": images, "categories": categories}, path.parent)


def image_ids(files: Sequence[Path], truth: Truth) -> dict[Path, Any]:
    """The id of each file in an annotated set.

    Raises:
        UserError: a file is none of its images, or two are the same.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]
    found = match_files(absolute, truth, [None] * len(files), "")
    ids = {file: image["id"] for file, image in zip(files, found, strict=True)}
    if len(set(ids.values())) < len(ids):
        raise UserError(f"Two of the images have one id in {truth.path}; predict one folder at a time.")
    return ids


def use_ids_of(truth: Truth, categories: Sequence[dict]) -> list[dict]:
    """A model's categories with the ids that an annotated set has for their names; a set without some of them is told
    in the log, and changes nothing."""
    ids = {c["name"]: c["id"] for c in truth.dataset["categories"]}
    lacking = [c["name"] for c in categories if c["name"] not in ids]
    if lacking and ids:
        logger.warning(f"{truth.path} has no class {lacking[0]!r}: class ids are those of the weights.")
    return list(categories) if lacking else [{**c, "id": ids[c["name"]]} for c in categories]
