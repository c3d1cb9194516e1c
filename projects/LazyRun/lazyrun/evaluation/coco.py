"""COCO metrics by the fast C++ implementation of faster-coco-eval where it is installed, else by pycocotools."""

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2 import evaluation
from detectron2.evaluation import coco_evaluation
from detectron2.utils import comm
from pycocotools.cocoeval import COCOeval

from lazyrun.evaluation.ground_truth import GroundTruth, complete, on_left_out
from lazyrun.evaluation.results import LISTING
from pretrain.common.files import save_json

try:
    from faster_coco_eval import COCOeval_faster
except ImportError:
    COCOeval_faster = None

__all__ = ["COCOEvaluator", "complete"]

logger = logging.getLogger(__name__)

TASKS = {"pred_masks": "segm", "pred_keypoints": "keypoints"}
"""What a model's outputs are evaluated for, besides their boxes."""

USUAL_LIMIT = 100
"""COCO's detections in an image."""


class COCOEvaluator(evaluation.COCOEvaluator):
    """:class:`detectron2.evaluation.COCOEvaluator`, whose own fast implementation needs a compiled detectron2.

    The metrics are those of pycocotools on the cleaned annotation file (:mod:`lazyrun.data.coco`). A task or class with
    ground truth of which nothing is found has an AP of 0; NaN means that there is no ground truth.

    Args:
        args: as in detectron2's.
        use_fast_impl: False takes pycocotools in any case.
        kwargs: as in detectron2's.
    """

    def __init__(self, *args: Any, use_fast_impl: bool = True, **kwargs: Any):
        with _replaced("COCO", GroundTruth):
            super().__init__(*args, use_fast_impl=False, **kwargs)
        per_image: list[int] = self._max_dets_per_image  # type: ignore[has-type]
        limit = per_image[2]
        self._max_dets_per_image = [min(n, limit) for n in per_image]
        self.implementation = COCOeval_faster if use_fast_impl and COCOeval_faster is not None else COCOeval

    def reset(self) -> None:
        super().reset()
        self._fields: set[str] = set()
        self._unusable: set[Any] = set()

    def leave_out(self, image_id: Any) -> None:
        """Takes note of an image that cannot be used: its objects are not missed."""
        self._unusable.add(image_id)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """As the base class; images may have the ids of the annotation file."""
        super().process([{**i, "image_id": self._coco_api.number(i["image_id"])} for i in inputs], outputs)
        for output in outputs:
            if "instances" in output:
                self._fields.update(output["instances"].get_fields())

    def evaluate(self, img_ids: Sequence[int] | None = None) -> dict:
        if self._distributed:
            for fields, unusable in comm.all_gather((self._fields, self._unusable)):
                self._fields |= fields
                self._unusable |= unusable
        if self._unusable:
            ids = self._coco_api.getImgIds() if img_ids is None else img_ids
            img_ids = sorted(set(ids) - self._unusable)
        return super().evaluate(img_ids)

    def _tasks_from_predictions(self, predictions: list[dict]) -> list[str]:
        """As the base class, and what the model would give for objects if it found any."""
        tasks = set(super()._tasks_from_predictions(predictions))
        return sorted(tasks | {task for field, task in TASKS.items() if field in self._fields})

    def _eval_predictions(self, predictions: list[dict], img_ids: list[int] | None = None) -> None:
        limit = self._max_dets_per_image[2]
        logger.info(f"COCO metrics by {self.implementation.__module__.partition('.')[0]}.")
        if limit != USUAL_LIMIT:
            logger.info(f"Up to {limit} detections an image count.")
        self._img_ids = img_ids
        counted = self._counted(predictions)
        with _replaced("COCOeval", self.implementation), _replaced("COCOevalMaxDets", self._with_limit()):
            super()._eval_predictions(counted, img_ids)
        if self._output_dir:
            self._write_listing(img_ids)
            if self._coco_api.left_out or self._coco_api.source_ids:
                self._write_all(predictions)

    def _with_limit(self) -> type:
        """The class that detectron2 takes for another limit than COCO's; faster-coco-eval's own knows any."""
        return coco_evaluation.COCOevalMaxDets if self.implementation is COCOeval else self.implementation

    def _counted(self, predictions: list[dict]) -> list[dict]:
        """The predictions without those on objects that are left out; copies, where they are written once more."""
        if not self._coco_api.left_out and not self._coco_api.source_ids:
            return predictions
        class_ids = self._class_ids()
        counted = []
        for prediction in predictions:
            results = [dict(r) for r in prediction.get("instances", ())]
            named = [{**r, "category_id": class_ids.get(r["category_id"], r["category_id"])} for r in results]
            out = on_left_out(named, self._coco_api.left_out)
            kept = [r for r, left_out in zip(results, out, strict=True) if not left_out]
            counted.append({**prediction, "instances": kept})
        return counted

    def _class_ids(self) -> dict[int, int]:
        """The annotation file's category ids by class index."""
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id") or {}
        return {index: i for i, index in ids.items()}

    def _write_listing(self, img_ids: Sequence[int] | None) -> None:
        """Writes which image and class an id in the results file stands for."""
        truth, folder = self._coco_api, self._metadata.get("image_root", "")
        evaluated = None if img_ids is None else set(img_ids)
        images = [
            {"id": truth.source_ids.get(i["id"], i["id"]), "file_name": os.path.join(folder, i["file_name"])}
            for i in truth.dataset["images"]
            if evaluated is None or i["id"] in evaluated
        ]
        class_ids, names = self._class_ids(), self._metadata.get("thing_classes") or ()
        categories = [{"id": class_ids.get(index, index), "name": name} for index, name in enumerate(names)]
        save_json({"images": images, "categories": categories}, Path(self._output_dir) / LISTING)

    def _write_all(self, predictions: list[dict]) -> None:
        """Writes the results file anew, with all detections and the file's own ids of images."""
        class_ids, source_ids = self._class_ids(), self._coco_api.source_ids
        results = [
            {
                **r,
                "image_id": source_ids.get(r["image_id"], r["image_id"]),
                "category_id": class_ids.get(r["category_id"], r["category_id"]),
            }
            for r in itertools.chain(*(p["instances"] for p in predictions))
        ]
        save_json(results, Path(self._output_dir) / "coco_instances_results.json")

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        return (
            self._coco_api.nothing_found(iou_type, class_names or (), self._img_ids) if coco_eval is None else results
        )


@contextmanager
def _replaced(name: str, cls: type) -> Iterator[None]:
    """detectron2 takes some classes from globals of its module; inside this context one of them is `cls`.

    Its methods have no argument for them, and overriding them would repeat all of what they write.
    """
    before = getattr(coco_evaluation, name)
    setattr(coco_evaluation, name, cls)
    try:
        yield
    finally:
        setattr(coco_evaluation, name, before)
