"""Whether an exported file finds what the model finds that it was made from."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou

from lazyrun.export.accuracy import Accuracy
from lazyrun.export.timing import Times
from lazyrun.inference.predictor import read_rgb
from lazyrun.onnx_runner.detections import Detections
from lazyrun.onnx_runner.model import OnnxModel

__all__ = ["Agreement", "compare_detections", "compare_detectors"]

logger = logging.getLogger(__name__)

MIN_SCORE = 0.05
MIN_IOU = 0.99
MAX_SCORE_DIFFERENCE = 1e-4
MIN_OVERLAP = 0.5


@dataclass
class Agreement:
    """Detections of two models, paired.

    Attributes:
        images, pairs: compared.
        unpaired: detections that only one of the models has.
        box_iou, mask_iou: the least of all pairs.
        score: the largest difference of all pairs.
        close: pairs whose boxes and masks have an IoU of at least :data:`MIN_IOU`.
        times: of both models.
    """

    images: int = 0
    pairs: int = 0
    unpaired: int = 0
    box_iou: float = 1.0
    mask_iou: float = 1.0
    score: float = 0.0
    close: int = 0
    times: Times = field(default_factory=Times)

    @property
    def holds(self) -> bool:
        """Whether every detection has its like, with :data:`MIN_IOU` and :data:`MAX_SCORE_DIFFERENCE`."""
        return self.unpaired == 0 and min(self.box_iou, self.mask_iou) >= MIN_IOU and self.score <= MAX_SCORE_DIFFERENCE

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.pairs} detections in both, {self.unpaired} in one alone; "
            f"least IoU of boxes {self.box_iou:.4f}, of masks {self.mask_iou:.4f}; "
            f"scores differ by up to {self.score:.1e}; {self.close} pairs with IoU of at least {MIN_IOU}"
            f"{self.times}"
        )


def compare_detectors(
    predictor: Any, exported: OnnxModel, images: Iterable[np.ndarray | Path], *, accuracy: Accuracy | None = None
) -> Agreement:
    """Compares an exported detector with the eager one, on RGB arrays or files.

    Args:
        predictor: the eager detector.
        exported: its file.
        images: on which both are run.
        accuracy: takes in what both find in each image; for files alone.

    Raises:
        OSError: a file cannot be read.
    """
    agreement = Agreement()
    for image in images:
        pixels = image if isinstance(image, np.ndarray) else read_rgb(image)
        before = agreement.unpaired
        eager, found = agreement.times.run(partial(predictor, slice=None), exported, pixels)
        assert isinstance(found, Detections)
        compare_detections(agreement, eager, found)
        if accuracy is not None and isinstance(image, Path):
            accuracy.add(image, predictor, eager, found)
        if agreement.unpaired > before and exported.metadata.precision == "float32":
            name = "An array" if isinstance(image, np.ndarray) else image
            logger.warning(f"{name}: {agreement.unpaired - before} detections have no like in the other model.")
    return agreement


def compare_detections(agreement: Agreement, eager: Instances, exported: Detections) -> None:
    """Adds one image: each detection above :data:`MIN_SCORE` is paired with its like of the other model.

    Scores just around the threshold may lie on either side of it; their likes are looked for among all detections.
    """
    agreement.images += 1
    iou = pairwise_iou(eager.pred_boxes, Boxes(torch.from_numpy(exported.boxes))).numpy()
    same = eager.pred_classes.numpy()[:, None] == exported.classes[None]
    near = np.abs(eager.scores.numpy()[:, None] - exported.scores[None]) <= MAX_SCORE_DIFFERENCE
    # Boxes that overlap by half or less are no pair. Of those that overlap as much, the one of the same score is taken.
    alike = np.where(same & (iou > MIN_OVERLAP), iou + near, -1.0)
    pairs = _pairs(alike)
    counted = {i: j for i, j in pairs if max(eager.scores[i].item(), exported.scores[j]) > MIN_SCORE}
    close = {i: iou[i, j] >= MIN_IOU for i, j in counted.items()}
    for i, j in counted.items():
        agreement.pairs += 1
        agreement.box_iou = min(agreement.box_iou, float(iou[i, j]))
        agreement.score = max(agreement.score, abs(eager.scores[i].item() - float(exported.scores[j])))
    if exported.soft_masks is not None:
        for i, mask in enumerate(eager.pred_masks):  # one at a time: those of large images fill the memory
            if i in counted:
                (ours,) = exported[np.array([counted[i]])].masks
                overlap = _mask_iou(mask.numpy(), ours)
                agreement.mask_iou = min(agreement.mask_iou, overlap)
                close[i] = close[i] and overlap >= MIN_IOU
    agreement.close += sum(close.values())
    first, second = ({pair[side] for pair in pairs} for side in (0, 1))
    agreement.unpaired += sum(i not in first for i in np.flatnonzero(eager.scores.numpy() > MIN_SCORE))
    agreement.unpaired += sum(j not in second for j in np.flatnonzero(exported.scores > MIN_SCORE))


def _pairs(alike: np.ndarray) -> Sequence[tuple[int, int]]:
    """Pairs of rows and columns, the most alike first, each used once; negative ones are none."""
    pairs = []
    rows, columns = np.unravel_index(np.argsort(-alike, axis=None, kind="stable"), alike.shape)
    taken: tuple[set[int], set[int]] = (set(), set())
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        if alike[i, j] < 0:
            break
        if i not in taken[0] and j not in taken[1]:
            pairs.append((i, j))
            taken[0].add(i)
            taken[1].add(j)
    return pairs


def _mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
