"""COCO metrics by the fast C++ implementation of faster-coco-eval where it is installed, else by pycocotools."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2 import evaluation
from detectron2.evaluation import coco_evaluation
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

try:
    from faster_coco_eval import COCOeval_faster
except ImportError:
    COCOeval_faster = None

__all__ = ["COCOEvaluator", "complete"]

logger = logging.getLogger(__name__)


class COCOEvaluator(evaluation.COCOEvaluator):
    """:class:`detectron2.evaluation.COCOEvaluator`, whose own fast implementation needs a compiled detectron2.

    The metrics are those of pycocotools, except that annotations may be counted from 0: pycocotools takes the object
    with id 0 for none and so for missed. Annotations may leave out `iscrowd` (not a crowd), `area` (that of the mask,
    or of the box where there is none), and the file its `info`.

    Args:
        args: as in detectron2's.
        use_fast_impl: False takes pycocotools in any case.
        kwargs: as in detectron2's.
    """

    def __init__(self, *args: Any, use_fast_impl: bool = True, **kwargs: Any):
        super().__init__(*args, use_fast_impl=False, **kwargs)
        fast = use_fast_impl and COCOeval_faster is not None and self._max_dets_per_image[2] == 100
        self.implementation = COCOeval_faster if fast else COCOeval
        complete(self._coco_api)

    def _eval_predictions(self, predictions: list[dict], img_ids: list[int] | None = None) -> None:
        logger.info(f"COCO metrics by {self.implementation.__module__.partition('.')[0]}.")
        with _implementation(self.implementation):
            super()._eval_predictions(predictions, img_ids)


@contextmanager
def _implementation(cls: type) -> Iterator[None]:
    """detectron2 takes the class from a global of its module; inside this context that is `cls`.

    Its methods have no argument for it, and overriding them would repeat all of what they write.
    """
    before = coco_evaluation.COCOeval
    coco_evaluation.COCOeval = cls
    try:
        yield
    finally:
        coco_evaluation.COCOeval = before


def complete(coco: COCO) -> None:
    """Fills in what annotations may leave out, in place, and counts them from 1 where one has the id 0.

    pycocotools takes the id 0 for "no object". A missing `iscrowd` is 0, a missing `area` that of the mask,
    or of the box where there is none.
    """
    coco.dataset.setdefault("info", {})
    annotations = coco.dataset.get("annotations", ())
    if 0 in coco.anns:
        for annotation in annotations:
            annotation["id"] += 1
        coco.createIndex()
    for annotation in annotations:
        annotation.setdefault("iscrowd", 0)
        if "area" not in annotation:
            _, _, width, height = annotation["bbox"]
            masked = annotation.get("segmentation")
            annotation["area"] = float(mask_api.area(coco.annToRLE(annotation))) if masked else float(width * height)
