"""Ground truth in any annotation format, and detections that belong to it by the names of files and classes."""

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
from lazyrun.data.formats.content import listed
from lazyrun.data.formats.registry import format_of
from pretrain.common.errors import UserError

__all__ = ["LISTING", "Truth", "image_ids", "read_listed", "read_results", "read_truth", "use_ids_of"]

logger = logging.getLogger(__name__)

LISTING = "images.json"
"""File beside results that tells the file of each image id and the name of each class id."""

NEEDED = {
    "images": ("id", "file_name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""The lists of an annotation file, in the order of :func:`coco_lists`, and the keys of their entries."""

KNOWN = {"image_id": "images", "category_id": "categories"}


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


def _cleaned(path: Path, content: Any) -> dict[str, list[dict]]:
    """A COCO file, cleaned as it is for the evaluation."""
    try:
        lists = coco_lists(content)
    except UserError as e:
        raise UserError(f"{path} {e}.") from e
    if not lists[0]:
        raise UserError(f"{path} lists no images; check that it is the right file.")
    for (name, keys), entries in zip(NEEDED.items(), lists, strict=True):
        _check_entries(path, name, entries, keys)
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


def _check_entries(path: Path, name: str, entries: list[dict], keys: Sequence[str]) -> None:
    for entry in entries:
        lacking = [key for key in keys if entry.get(key) is None]
        if lacking:
            raise UserError(f"{path}: one of its {name} has no {', '.join(lacking)}: {json.dumps(entry)[:100]}")
        box = entry.get("bbox", [0] * 4)
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
            raise UserError(f"{path}: the bbox {json.dumps(box)[:100]} is not four numbers: x, y, width, height.")


def read_results(path: Path, truth: Truth) -> tuple[dict[str, list[dict]], list[dict]]:
    """A COCO results file, and the ground truth that it is to be compared with.

    Where a file `images.json` beside the results tells their images and classes, as evaluations and predictions of
    this project write it, these are matched by name, and the ground truth is that of those images and classes. Without
    one the results must have the ids of the ground truth.

    Returns:
        the data set, as :attr:`Truth.dataset`, and the detections with its ids.

    Raises:
        UserError: the file is missing, not JSON, empty, not a list of detections, or of another data set.
    """
    results = _detections(path)
    dataset, listing = truth.dataset, _listing(path.parent / LISTING)
    if listing is None:
        numbers = {image["source_id"]: image["id"] for image in dataset["images"] if "source_id" in image}
    else:
        dataset, numbers = _as_listed(truth, listing, path)
    results = [{**r, "image_id": numbers.get(r["image_id"], r["image_id"])} for r in results]
    for key, table in KNOWN.items():
        strangers = {r[key] for r in results} - {row["id"] for row in dataset[table]}
        if strangers:
            raise UserError(
                f"{path} is of another data set: its {key} {sorted(strangers, key=str)[0]} is not among the "
                f"annotations' {table}."
            )
    return dataset, results


def _detections(path: Path) -> list[dict]:
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    try:
        results = json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f"{path} is not a JSON file: {e}") from e
    if not isinstance(results, list) or any(not isinstance(r, dict) or "score" not in r for r in results):
        raise UserError(f"{path} is not a COCO results file: a list of detections with a score each.")
    if not results:
        raise UserError(f"{path} holds no detections; train the detector longer, or check which weights it was given.")
    _check_entries(path, "detections", results, ("image_id", "category_id", "score"))
    if any(isinstance(r[key], list | dict) for r in results for key in KNOWN):
        raise UserError(f"{path}: an image_id or category_id is neither a number nor a text.")
    return results


def _listing(path: Path) -> dict[str, list[dict]] | None:
    """Images and classes of results; None for a file of another kind."""
    try:
        content = json.loads(path.read_bytes())
        images, categories = content["images"], content["categories"]
        {i["id"]: i["file_name"] for i in images}, {c["id"]: c["name"] for c in categories}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"images": images, "categories": categories}


def _as_listed(truth: Truth, listing: dict, results: Path) -> tuple[dict[str, list[dict]], dict[Any, int]]:
    """The part of the ground truth that a listing names, with the listing's classes; its image ids by the listing's."""
    files = [Path(i["file_name"]) for i in listing["images"]]
    found = _match_files(files, truth, [i["id"] for i in listing["images"]], f"{results} is of other images: ")
    dataset, known = truth.dataset, {image["id"] for image in found}
    annotations, left_out = (
        [a for a in dataset.get(key, ()) if a["image_id"] in known] for key in ("annotations", "left_out")
    )
    if len(known) < len(dataset["images"]):
        logger.warning(f"{len(known)} of {len(dataset['images'])} images of {truth.path} are those of {results}.")
    part = {"images": found, "annotations": annotations, "categories": dataset["categories"], "left_out": left_out}
    if listing["categories"]:
        part = _with_classes(part, listing["categories"], truth.path, results)
    return part, {i["id"]: image["id"] for i, image in zip(listing["images"], found, strict=True)}


def _with_classes(dataset: dict, categories: list[dict], path: Path, results: Path) -> dict[str, list[dict]]:
    """The data set with other categories, by name; objects of others are left out."""
    ids = {c["name"]: c["id"] for c in categories}
    strange = [c["name"] for c in dataset["categories"] if c["name"] not in ids]
    if len(strange) == len(dataset["categories"]):
        raise UserError(
            f"{results} is of other classes ({listed(ids)}) than {path} ({listed(strange)}): not one has the same name."
        )
    if strange:
        logger.warning(f"{path}: objects of {listed(strange)} are left out, as {results} has no such class.")
    by_id = {c["id"]: ids.get(c["name"]) for c in dataset["categories"]}
    changed = {
        key: [
            {**a, "category_id": by_id[a["category_id"]]} for a in dataset[key] if by_id[a["category_id"]] is not None
        ]
        for key in ("annotations", "left_out")
    }
    return {**dataset, "categories": sorted(categories, key=lambda c: c["id"]), **changed}


def _match_files(files: Sequence[Path], truth: Truth, ids: Sequence[Any], refusal: str) -> list[dict]:
    """The image of a data set for each file: the one whose path agrees with most of the file's, from the end.

    Args:
        files: all their parts must agree with the image's path, or include the whole name in the data set.
        truth: the data set.
        ids: of the files, for images that share a file; those of the data set, or any others.
        refusal: how messages begin.

    Raises:
        UserError: a file is none of the images, or may be several.
    """
    by_name: defaultdict[str, list[dict]] = defaultdict(list)
    for image in truth.dataset["images"]:
        by_name[Path(image["file_name"]).name].append(image)
    found = []
    for file, number in zip(files, ids, strict=True):
        ranked: defaultdict[int, list[dict]] = defaultdict(list)
        for image in by_name[file.name]:
            name = Path(image["file_name"])
            agreeing = _agreeing(file.parts, Path(os.path.abspath(truth.root / name)).parts)
            if agreeing >= min(len(file.parts), len(name.parts)):
                ranked[agreeing].append(image)
        best = ranked[max(ranked)] if ranked else []
        if len(best) > 1:
            best = [i for i in best if i.get("source_id", i["id"]) == number] or best
        if len(best) != 1:
            what = f"{file} is not among those of" if not best else f"{file} may be any of several in"
            raise UserError(f"{refusal}{what} {truth.path}.")
        found.append(best[0])
    return found


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
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is not a COCO annotation file.") from e
    return Truth(path, {"images": images, "categories": categories}, path.parent)


def image_ids(files: Sequence[Path], truth: Truth) -> dict[Path, Any]:
    """The id of each file in an annotated set.

    Raises:
        UserError: a file is none of its images, or two are the same.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]
    found = _match_files(absolute, truth, [None] * len(files), "")
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
