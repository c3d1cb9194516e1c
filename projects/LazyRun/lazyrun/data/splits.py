"""Splits and classes of annotated sets: parted by file name, matched by class name, written as COCO files."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from lazyrun.data.formats.content import AnnotatedSet, listed
from pretrain.common.errors import UserError
from pretrain.common.temporary import replacing

__all__ = ["choose_classes", "match_classes", "select_categories", "split_by_name", "write_coco"]


def split_by_name(whole: AnnotatedSet, fraction: float) -> tuple[AnnotatedSet, AnnotatedSet]:
    """Parts a set for training and for evaluation.

    An image goes where a hash of its file name says, whatever other images there are: more images or another folder
    leave it in its part, and a larger fraction only moves images to the second part. Copies of a photo that Roboflow
    made (`name.rf.….jpg`) stay together.

    Args:
        fraction: share of the images for evaluation, about; greater than 0 and less than 1.

    Raises:
        UserError: a part would have no images.
    """
    chosen = {image["id"] for image in whole.images if _position(str(image["file_name"])) < fraction}
    if not 0 < len(chosen) < len(whole.images):
        raise UserError(
            f"data.val_fraction={fraction:g} of the {len(whole.images)} images of {whole.path} leaves a part without "
            "any; choose another fraction, or name a set for evaluation with data.val=…"
        )
    parts = []
    for part, among in (("training", False), ("evaluation", True)):
        images = [i for i in whole.images if (i["id"] in chosen) is among]
        annotations = [a for a in whole.annotations if (a["image_id"] in chosen) is among]
        notes = [*whole.notes, f"the part for {part} of data.val_fraction={fraction:g}"]
        parts.append(replace(whole, images=images, annotations=annotations, notes=notes, json_file=None))
    return parts[0], parts[1]


def _position(file_name: str) -> float:
    """A number in [0, 1) that follows from the name alone."""
    name = file_name.replace("\\", "/").rpartition("/")[2].partition(".rf.")[0]
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def choose_classes(found: AnnotatedSet, names: Sequence[str]) -> AnnotatedSet:
    """The set with these classes alone, in this order; objects of other classes are left out, images are kept.

    Raises:
        UserError: a name is none of the set's classes, or is given twice.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise UserError(f"data.classes={list(names)} must name each class once, and at least one.")
    unknown = [name for name in names if name not in found.names]
    if unknown:
        raise UserError(f"data.classes: {found.path} has no class {unknown[0]!r}; it has {listed(found.names, 50)}.")
    by_name = {c["name"]: c for c in found.categories}
    chosen = [by_name[name] for name in names]
    return select_categories(found, _ascending(chosen))


def match_classes(found: AnnotatedSet, categories: Sequence[dict], owner: str) -> AnnotatedSet:
    """The set with the categories of another one: names decide, ids are replaced.

    Args:
        categories: of a training set or a checkpoint, in the order of the model's class indices.
        owner: whose they are, for messages.

    Raises:
        UserError: the set has a class that is not among them.
    """
    known = [c["name"] for c in categories]
    strange = [name for name in found.names if name not in known]
    if strange:
        raise UserError(
            f"{found.path} has the class {strange[0]!r}, which {owner} does not have (it has {listed(known, 50)}); "
            "correct its name, or leave it out with data.classes=[…]."
        )
    return select_categories(found, categories)


def _ascending(categories: list[dict]) -> list[dict]:
    """Categories whose ids grow, as their order is that of their ids: their own if these do, else 1, 2, 3, …"""
    ids = [c["id"] for c in categories]
    if all(a < b for a, b in pairwise(ids)):
        return categories
    return [c | {"id": number} for number, c in enumerate(categories, start=1)]


def select_categories(found: AnnotatedSet, categories: Sequence[dict]) -> AnnotatedSet:
    """The set with these categories in place of its own: names decide, objects of others are left out.

    Raises:
        UserError: two of its categories have one name.
    """
    if [(c["id"], c["name"]) for c in categories] == [(c["id"], c["name"]) for c in found.categories]:
        return found
    twice = [name for name, count in Counter(found.names).items() if count > 1]
    if twice:
        raise UserError(f"{found.path} has two classes called {twice[0]!r}; give each a name of its own.")
    new_ids = {c["name"]: c["id"] for c in categories}
    ids = {c["id"]: new_ids[c["name"]] for c in found.categories if c["name"] in new_ids}
    selected = {c["id"] for c in found.categories if c["name"] not in new_ids}
    # Ids that no category has are kept as they are, for the check of the data to report.
    kept = [a for a in found.annotations if a.get("category_id") not in selected]
    annotations = [a | {"category_id": ids.get(a.get("category_id"), a.get("category_id"))} for a in kept]
    notes = list(found.notes)
    if len(kept) < len(found.annotations):
        notes.append(f"{len(found.annotations) - len(kept)} objects of other classes are left out")
    return replace(found, annotations=annotations, categories=list(categories), notes=notes, json_file=None)


def write_coco(found: AnnotatedSet, path: Path) -> None:
    """Writes a set as a COCO file, unless that holds it already; several processes may do so at once.

    Raises:
        OSError: it cannot be written; an earlier file is left as it was.
    """
    data = json.dumps(found.content, ensure_ascii=True, separators=(",", ":")).encode()
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
