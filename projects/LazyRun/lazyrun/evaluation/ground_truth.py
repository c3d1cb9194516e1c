"""The ground truth of an evaluation: a cleaned annotation file as COCO's tools want it."""

import math
import warnings
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from lazyrun.data.coco.content import load
from lazyrun.data.coco.reading import parse_json
from pretrain.common.errors import UserError

__all__ = ["GroundTruth", "complete", "on_left_out"]

AREAS = {"APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, 1e10)}
"""COCO's small, medium and large objects, in pixels."""

SAME_OBJECT = 0.5
"""Least IoU of the boxes of a detection and an object that is left out, for the detection to be left out with it."""


class GroundTruth(COCO):
    """Cleaned annotations, numbered from 1.

    Attributes:
        source_ids: the file's image ids, by image id, where they had to be changed.
        left_out: objects without a usable mask, which are neither hit nor missed.
    """

    def __init__(self, json_file: str | None = None):
        with redirect_stdout(StringIO()):
            super().__init__()
        self.source_ids: dict[int, Any] = {}
        self._numbers: dict[Any, int] = {}
        self.left_out: list[dict] = []
        if json_file is not None:
            self._read(json_file)

    def _read(self, json_file: str) -> None:
        try:
            content = load(json_file)
        except UserError as e:
            listed = parse_json(Path(json_file))
            if not isinstance(listed, dict) or "images" not in listed or "annotations" in listed:
                raise UserError(f"{json_file} {e}.") from e
            self.dataset = listed  # of a test set whose annotations are not public
        else:
            content.check(json_file)
            self.left_out = content.left_out
            self.source_ids = {i["id"]: i["source_id"] for i in content.images if "source_id" in i}
            self._numbers = {source: i for i, source in self.source_ids.items()}
            self.dataset = {
                "images": content.images,
                "annotations": [dict(a) for a in content.annotations],  # which the evaluation adds to
                "categories": content.categories,
            }
        with redirect_stdout(StringIO()):
            self.createIndex()
        complete(self)

    def number(self, image_id: Any) -> Any:
        """The id of an image that is given by it or by the file's id."""
        return image_id if image_id in self.imgs else self._numbers.get(image_id, image_id)

    def nothing_found(self, task: str, class_names: Sequence[str], image_ids: Collection[int] | None) -> dict:
        """The metrics of an evaluation without a single detection: 0, and NaN where there is no ground truth.

        Args:
            task: `bbox`, `segm` or `keypoints`.
            class_names: in the order of the category ids; with two or more, there is an AP for each.
            image_ids: those evaluated; None for all.
        """
        evaluated = None if image_ids is None else set(image_ids)
        objects = [
            a
            for a in self.dataset["annotations"]
            if not a["iscrowd"]
            and (evaluated is None or a["image_id"] in evaluated)
            and (task != "keypoints" or a.get("num_keypoints"))
        ]
        results = dict.fromkeys(("AP", "AP50", "AP75"), _zero_if(objects))
        for name, (low, high) in AREAS.items():
            if task != "keypoints" or name != "APs":
                results[name] = _zero_if([a for a in objects if low <= a["area"] <= high])
        if len(class_names) > 1:
            present = {a["category_id"] for a in objects}
            ids = sorted(self.cats)
            results |= {f"AP-{name}": _zero_if(present & {i}) for i, name in zip(ids, class_names, strict=True)}
        return results


def _zero_if(objects: Collection) -> float:
    return 0.0 if objects else math.nan


def on_left_out(results: Sequence[dict], left_out: Sequence[dict]) -> list[bool]:
    """Which detections are of objects that are left out: those of the same image and class, by the overlap of boxes.

    Args:
        results: COCO results with `image_id`, `category_id` and `bbox`.
        left_out: annotations.
    """
    boxes: defaultdict[tuple, list] = defaultdict(list)
    for annotation in left_out:
        boxes[annotation["image_id"], annotation["category_id"]].append(annotation["bbox"])
    found = []
    for result in results:
        theirs = boxes.get((result["image_id"], result["category_id"]), ())
        box = np.array([result["bbox"]], float)
        found.append(any(mask_api.iou(box, np.array([b], float), [0])[0, 0] >= SAME_OBJECT for b in theirs))
    return found


def complete(coco: COCO) -> None:
    """Fills in what annotations may leave out, in place, and counts them from 1.

    COCO's tools take the id 0 for "no object", and the faster one takes other ids than whole numbers above 0 for
    anything. A missing `iscrowd` is 0, a missing `area` that of the mask, or of the box where there is none.
    """
    coco.dataset.setdefault("info", {})
    annotations = coco.dataset.get("annotations", ())
    ids = [a["id"] for a in annotations]
    if ids != list(range(1, len(ids) + 1)) or set(map(type, ids)) - {int}:  # 1.0 equals 1
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coco.createIndex()
    for annotation in annotations:
        annotation.setdefault("iscrowd", 0)
        if "area" not in annotation:
            _, _, width, height = annotation["bbox"]
            masked = annotation.get("segmentation")
            annotation["area"] = float(mask_api.area(coco.annToRLE(annotation))) if masked else float(width * height)
