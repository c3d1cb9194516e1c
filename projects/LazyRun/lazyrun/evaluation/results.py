"""Detections of a results file, matched with ground truth by the names of files and classes."""

import json
import logging
from pathlib import Path
from typing import Any

from lazyrun.data.formats.content import listed
from lazyrun.evaluation.truth import Truth, check_entries, match_files
from pretrain.common.errors import UserError

__all__ = ["LISTING", "match_results", "read_results"]

logger = logging.getLogger(__name__)

LISTING = "images.json"
"""File beside results that tells the file of each image id and the name of each class id."""

KNOWN = {"image_id": "images", "category_id": "categories"}


def match_results(path: Path, truth: Truth) -> tuple[dict[str, list[dict]], list[dict]]:
    """A COCO results file, and the ground truth that it is to be compared with.

    Where a file `images.json` beside the results tells their images and classes, as evaluations and predictions of
    this project write it, these are matched by name, and the ground truth is that of those images and classes. Without
    one the results must have the ids of the ground truth.

    Returns:
        the data set, as :attr:`Truth.dataset`, and the detections with its ids.

    Raises:
        UserError: the file is missing, not JSON, empty, not a list of detections, or of another data set.
    """
    results, listing = _detections(path), _listing(path.parent / LISTING)
    dataset, numbers = (truth.dataset, _numbers(truth.dataset)) if listing is None else _as_listed(truth, listing, path)
    return dataset, _with_ids(path, results, dataset, numbers)


def read_results(path: Path, dataset: dict[str, list[dict]]) -> list[dict]:
    """A COCO results file that has the ids of `dataset`, which is as :attr:`Truth.dataset`.

    Raises:
        UserError: as of :func:`match_results`.
    """
    return _with_ids(path, _detections(path), dataset, _numbers(dataset))


def _numbers(dataset: dict[str, list[dict]]) -> dict[Any, int]:
    """Image ids by those of the annotation file, where they differ."""
    return {i["source_id"]: i["id"] for i in dataset["images"] if "source_id" in i}


def _with_ids(path: Path, results: list[dict], dataset: dict[str, list[dict]], numbers: dict[Any, int]) -> list[dict]:
    """Detections with other image ids, where `numbers` has them; raises UserError for ids that `dataset` lacks."""
    results = [{**r, "image_id": numbers.get(r["image_id"], r["image_id"])} for r in results]
    for key, table in KNOWN.items():
        strangers = {r[key] for r in results} - {row["id"] for row in dataset[table]}
        if strangers:
            raise UserError(
                f"{path} is of another data set: its {key} {sorted(strangers, key=str)[0]} is not among the "
                f"annotations' {table}."
            )
    return results


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
    check_entries(path, "detections", results, ("image_id", "category_id", "score"))
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
    found = match_files(files, truth, [i["id"] for i in listing["images"]], f"{results} is of other images: ")
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
