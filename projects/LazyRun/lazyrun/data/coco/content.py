"""The cleaned content of a COCO file: what the check, training and evaluation all see."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from lazyrun.data.coco.annotations import clean_annotations
from lazyrun.data.coco.findings import Findings
from lazyrun.data.coco.identity import IdMap, whole_number
from lazyrun.data.coco.reading import read_coco_json
from lazyrun.data.images import LARGEST_SIDE
from pretrain.common.errors import UserError

__all__ = ["CocoContent", "clean", "load"]

ROOT_PARENT = "none"
"""What Roboflow states as the parent of its root category, which stands for the project and has no objects."""


@dataclass
class CocoContent:
    """A COCO file without its oddities.

    Attributes:
        images: `id` a whole number; `file_name` text; `width`, `height` whole numbers. Where the file's own ids cannot
            be kept, `source_id` is the file's.
        annotations: those of known images and categories whose box has an area, with sound masks or none. Their ids
            are the file's.
        categories: in the order of their ids, which is that of the model's class indices.
        left_out: annotations whose box is sound, but whose mask has no area: neither trained on nor evaluated.
        degenerate: annotations whose box has no area, left out.
        mended: what was changed or left out.
        faults: what must be put right first; then the lists hold only what was checked before.
        doubts: what training could bear, but tells of wrong data.
    """

    images: list[dict] = field(default_factory=list)
    annotations: list[dict] = field(default_factory=list)
    categories: list[dict] = field(default_factory=list)
    left_out: list[dict] = field(default_factory=list)
    degenerate: Findings = field(default_factory=Findings)
    mended: Findings = field(default_factory=Findings)
    faults: Findings = field(default_factory=Findings)
    doubts: Findings = field(default_factory=Findings)

    @property
    def without_area(self) -> int:
        """Number of boxes without area."""
        return sum(finding.count for finding in self.degenerate)

    def check(self, source: object) -> None:
        """Raises UserError, which names the file, if it has faults."""
        self.faults.check(source)


def load(json_file: str | os.PathLike) -> CocoContent:
    """Reads and cleans a COCO file; a file that has not changed since is read once.

    The result is shared: it must not be changed.

    Raises:
        UserError: it is not a COCO file, or a category is none; the message continues a sentence that begins with the
            file's name.
    """
    path = Path(json_file).resolve()
    stat = path.stat()
    return _load(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)  # the training and the validation set of a run
def _load(path: Path, modified: int, size: int) -> CocoContent:
    return clean(*read_coco_json(path))


def clean(
    images: list[dict], annotations: list[dict], categories: list[dict], *, sizes_needed: bool = True
) -> CocoContent:
    """Mends what has one meaning only, leaves out what cannot matter, and notes the rest as faults.

    Args:
        images, annotations, categories: of a COCO file; they are not changed.
        sizes_needed: images must have a width and height; without them less of their annotations is checked.

    Raises:
        UserError: a category is none; the message continues a sentence that begins with the file's name.
    """
    content = CocoContent()
    image_ids = _clean_images(content, images, sizes_needed)
    used = Counter(whole_number(a.get("category_id")) for a in annotations)
    category_ids = _clean_categories(content, categories, used)
    _check_ids(content, annotations)
    if not content.faults:  # the rest relies on sound ids
        clean_annotations(content, annotations, image_ids, category_ids)
    return content


def _clean_images(content: CocoContent, images: list[dict], sizes_needed: bool) -> IdMap:
    ids = IdMap([image.get("id") for image in images])
    content.faults.add("image ids used twice or missing", ids.twice_or_missing, "make them unique.")
    if ids.renumbered:
        content.mended.add("image ids that are no whole numbers of up to 53 bits", ids.odd, ids.REMEDY)
    names: Counter = Counter()
    for image in images:
        known = ids.get(image.get("id"))
        entry = {**image, "id": known}
        if ids.renumbered:
            entry["source_id"] = image.get("id")
        name = image.get("file_name")
        if type(name) in (int, float):
            content.mended.note("file names that are numbers", name, "taken as text.")
            name = entry["file_name"] = str(name)
        entry |= {key: _side(content, image, key) for key in ("width", "height")}
        sizes = (entry["width"] and entry["height"]) or not sizes_needed
        if not (isinstance(name, str) and name and sizes):
            kind = "images without file_name, width or height"
            content.faults.note(kind, image.get("id"), "fill them in.", detail=str(name or ""))
        names[name if isinstance(name, str) else None] += 1
        content.images.append(entry)
    twice = [name for name, count in names.items() if count > 1 and name]
    content.doubts.add(
        "file names used by several images", twice, "join their annotations under one image, or name each its own file."
    )
    return ids


def _side(content: CocoContent, image: dict, key: str) -> int | None:
    """Width or height in pixels, None where there is none that can be meant."""
    value = image.get(key)
    if type(value) is int:
        return value if 0 < value <= LARGEST_SIDE else None
    number = whole_number(value)
    if number is None or not 0 < number <= LARGEST_SIDE:
        return None
    kind = "widths and heights written as text or with a decimal point"
    content.mended.note(kind, f"{value!r} of image {image.get('id')}", file=str(image.get("file_name")))
    return number


def _clean_categories(content: CocoContent, categories: list[dict], used: Counter) -> dict[int, dict]:
    """The categories by id."""
    ids = [whole_number(c.get("id")) for c in categories]
    for category, number in zip(categories, ids, strict=True):
        if number is None or not isinstance(category.get("name"), str):
            shown = json.dumps({key: category.get(key) for key in ("id", "name")}, ensure_ascii=False)
            raise UserError(f"category {shown} needs a whole number as id and a text as name")
    counts = Counter(ids)
    content.faults.add(
        "category ids used twice or missing", [i for i, n in counts.items() if n > 1], "make them unique."
    )
    known = [{**c, "id": i} for c, i in zip(categories, ids, strict=True)]
    root = _root(known, used)
    if root is not None:
        content.mended.note("root categories without objects", f"{root['id']} {root['name']}", "left out.")
    content.categories = sorted((c for c in known if c is not root), key=lambda c: c["id"])
    names = Counter(c["name"] for c in content.categories)
    content.faults.add(
        "category names used twice",
        [
            f"{name!r} of {' and '.join(str(c['id']) for c in content.categories if c['name'] == name)}"
            for name, count in names.items()
            if count > 1
        ],
        "give each class a name of its own, or join them under one id.",
    )
    return {c["id"]: c for c in content.categories}


def _root(categories: list[dict], used: Counter) -> dict | None:
    """Roboflow's root category: no parent, no objects, and all others or one of the same name below it."""
    for category in categories:
        others = [c for c in categories if c is not category]
        if used[category["id"]] or category.get("supercategory") != ROOT_PARENT or not others:
            continue
        if any(c.get("name") == category.get("name") for c in others):
            return category
        if all(c.get("supercategory") == category.get("name") for c in others):
            return category
    return None


def _check_ids(content: CocoContent, annotations: list[dict]) -> None:
    counts: Counter = Counter()
    for annotation in annotations:
        number = annotation.get("id")
        counts[number if isinstance(number, int | float | str) else None] += 1
    content.faults.add(
        "annotation ids used twice or missing",
        [i for i, n in counts.items() if n > 1 or i is None],
        "make them unique.",
    )
