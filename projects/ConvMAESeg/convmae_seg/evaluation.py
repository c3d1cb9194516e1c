"""Metrics of semantic segmentation: detectron2's, from class maps instead of logits."""

import logging
from collections.abc import Callable
from os import PathLike

import numpy as np
import torch
from detectron2 import evaluation
from detectron2.data import Metadata, MetadataCatalog
from tabulate import tabulate

from convmae_seg.label_maps import IGNORED, read_label_map
from pretrain.common.errors import UserError

__all__ = ["SemSegEvaluator"]

logger = logging.getLogger(__name__)


class SemSegEvaluator(evaluation.SemSegEvaluator):
    """:class:`detectron2.evaluation.SemSegEvaluator` for models that give class maps.

    Metrics, in percent: mIoU over the classes that occur in the label maps, fwIoU (weighted by how often they do), mACC
    and pACC (accuracy of classes and of pixels), IoU and accuracy of each class. Boundary IoU is left out.

    Args:
        dataset_name: a registered data set with `sem_seg_file_name` and `stuff_classes`.
        distributed: collect from all processes.
        output_dir: folder for the predictions, as COCO's run-length encoding, and the metrics; None writes nothing.
        load_label_map: classes `(H, W)` of a label map, 0 to K - 1 and 255 where there is none, from its path and the
            metadata of the data set.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        load_label_map: Callable[[str | PathLike, Metadata], np.ndarray] = read_label_map,
    ):
        super().__init__(dataset_name, distributed, output_dir, sem_seg_loading_fn=self._load)
        self._load_label_map, self._metadata = load_label_map, MetadataCatalog.get(dataset_name)
        self._ignore_label = IGNORED
        self._compute_boundary_iou = False

    def process(self, inputs: list[dict], outputs: list[dict[str, torch.Tensor]]) -> None:
        """Counts the pixels of some images.

        Args:
            inputs: of each image its `file_name`.
            outputs: `classes` `(H, W)`, or else `sem_seg`, logits `(K, H, W)`.

        Raises:
            UserError: a class map has a class that the data set does not have, or another size than its label map.
        """
        for one, output in zip(inputs, outputs, strict=True):
            classes = output["classes"] if "classes" in output else output["sem_seg"].argmax(0)
            if classes.max() >= self._num_classes:
                raise UserError(
                    f"The model sees class {classes.max()} in {one['file_name']}, but {self._dataset_name} has "
                    f"{self._num_classes} classes, 0 to {self._num_classes - 1}; model.num_classes must be theirs."
                )
            self._now = one["file_name"], tuple(classes.shape)
            super().process([one], [{"sem_seg": _Decided(classes)}])

    def _load(self, path: str, dtype: type) -> np.ndarray:
        labels = self._load_label_map(path, self._metadata)
        image, size = self._now
        if labels.shape != size:
            raise UserError(
                f"Label map {path} has {labels.shape[1]}x{labels.shape[0]} pixels, but its image {image} has "
                f"{size[1]}x{size[0]}."
            )
        return labels.astype(dtype)

    def evaluate(self) -> dict | None:
        results = super().evaluate()
        if results:
            metrics = results["sem_seg"]
            rows = [(name, metrics[f"IoU-{name}"], metrics[f"ACC-{name}"]) for name in self._class_names]
            table = tabulate(rows, headers=("class", "IoU", "ACC"), floatfmt=".2f")
            logger.info(f"Classes of {self._dataset_name}, in percent:\n{table}")
        return results


class _Decided:
    """A class map in place of logits: detectron2's evaluator only calls argmax on them."""

    def __init__(self, classes: torch.Tensor):
        self.classes = classes

    def argmax(self, dim: int) -> torch.Tensor:
        return self.classes
