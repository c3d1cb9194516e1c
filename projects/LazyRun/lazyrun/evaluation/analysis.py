"""What a detector gets right and wrong on a data set, from annotations and results alone."""

import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO

import faster_coco_eval
import numpy as np
import pycocotools.coco
from pycocotools.cocoeval import COCOeval

from lazyrun.evaluation.ground_truth import complete, on_left_out

__all__ = ["Evaluation", "ImageErrors", "evaluate", "find_errors", "most_detections"]

logger = logging.getLogger(__name__)

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")
MATCH_IOU = 0.5
USUAL_DETECTIONS = 100


@dataclass
class Evaluation:
    """COCO's figures for boxes or masks; what has no ground truth is NaN.

    Attributes:
        task: `bbox` or `segm`.
        summary: AP, AP50, AP75, APs, APm, APl in [0, 100].
        class_ap: AP by class name.
        class_count: objects of the ground truth by class name, without crowds.
        precision: `(T, R, K)` in [0, 1] at the IoU thresholds, recalls and classes.
        iou, recall: the thresholds `(T,)` and recalls `(R,)`.
    """

    task: str
    summary: dict[str, float]
    class_ap: dict[str, float]
    class_count: dict[str, int]
    precision: np.ndarray
    iou: np.ndarray
    recall: np.ndarray


def evaluate(dataset: dict, results: Sequence[dict], task: str, max_detections: int | None = None) -> Evaluation:
    """COCO's evaluation.

    Args:
        dataset: a COCO annotation file, as :func:`lazyrun.evaluation.results.match_results` gives it.
        results: detections of a COCO results file.
        task: `bbox` or `segm`.
        max_detections: detections that count in an image, best first; by default :func:`most_detections`.
    """
    max_detections = max_detections or most_detections(results)
    results = _counted(dataset, results)
    if task == "segm":  # with a box beside it, COCO would take the box's area for the mask's
        results = [{key: value for key, value in r.items() if key != "bbox"} for r in results]
    truth, detections = _load(faster_coco_eval.COCO, dataset, results)
    evaluator = faster_coco_eval.COCOeval_faster(truth, detections, task, print_function=logger.debug)
    evaluator.params.maxDets = [min(n, max_detections) for n in (1, 10)] + [max_detections]
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    names = {c["id"]: c["name"] for c in dataset["categories"]}
    classes = [names[i] for i in evaluator.params.catIds]
    precision = np.asarray(evaluator.eval["precision"], dtype=float)[:, :, :, 0, -1]  # all areas, most detections
    precision[precision < 0] = np.nan
    count: defaultdict[str, int] = defaultdict(int)
    for annotation in dataset["annotations"]:
        count[names[annotation["category_id"]]] += not annotation.get("iscrowd")
    return Evaluation(
        task,
        {key: _percent(value) for key, value in zip(SUMMARY, evaluator.stats[:6], strict=True)},
        {name: 100 * float(np.mean(precision[:, :, k])) for k, name in enumerate(classes)},
        {name: count[name] for name in classes},
        precision,
        np.asarray(evaluator.params.iouThrs),
        np.asarray(evaluator.params.recThrs),
    )


def most_detections(results: Sequence[dict]) -> int:
    """How many detections count in an image: COCO's 100, or all of an image that has more (`data.max_detections`)."""
    return max(USUAL_DETECTIONS, max(Counter(r["image_id"] for r in results).values(), default=0))


def _counted(dataset: dict, results: Sequence[dict]) -> list[dict]:
    """The detections without those on objects that the evaluation leaves out."""
    out = on_left_out(results, dataset.get("left_out", ()))
    return [r for r, left_out in zip(results, out, strict=True) if not left_out]


def _percent(value: float) -> float:
    return 100 * float(value) if value >= 0 else float("nan")


def _load(coco: type, dataset: dict, results: Sequence[dict]) -> tuple:
    """Both files as COCO's objects, which change what they are given: they get copies, and are kept quiet."""
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an id 0, which is replaced right after
        truth = coco()
        truth.dataset = {**dataset, "annotations": [dict(a) for a in dataset["annotations"]]}
        truth.createIndex()
        complete(truth)
        return truth, truth.loadRes([dict(r) for r in results])


@dataclass
class ImageErrors:
    """The detections of one image, sorted into right and wrong at IoU 0.5.

    Attributes:
        hits: number of detections that match an object of their class.
        missed: annotations that no detection matches.
        false: detections that match nothing.
    """

    image_id: int
    hits: int = 0
    missed: list[dict] = field(default_factory=list)
    false: list[dict] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return len(self.missed) + len(self.false)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 for an image without objects in which nothing is found."""
        return 2 * self.hits / (2 * self.hits + self.errors) if self.hits + self.errors else 1.0


def find_errors(
    dataset: dict, results: Sequence[dict], score_threshold: float, max_detections: int | None = None
) -> list[ImageErrors]:
    """Objects missed and false detections of every image, worst image first.

    Boxes are matched as COCO does, best score first, within a class, at IoU 0.5; crowds are neither missed nor hit.
    Images are ordered by F1, those of equal F1 by the number of errors.

    Args:
        dataset: a COCO annotation file.
        results: detections of a COCO results file.
        score_threshold: detections below it are left out.
        max_detections: as of :func:`evaluate`.
    """
    max_detections = max_detections or most_detections(results)
    kept = [r for r in _counted(dataset, results) if r["score"] >= score_threshold]
    images = {image["id"]: ImageErrors(image["id"]) for image in dataset["images"]}
    if not kept:
        for annotation in dataset["annotations"]:
            if not annotation.get("iscrowd"):
                images[annotation["image_id"]].missed.append(annotation)
        return _worst_first(images.values())
    truth, detections = _load(pycocotools.coco.COCO, dataset, kept)
    evaluator = COCOeval(truth, detections, "bbox")
    params = evaluator.params
    params.iouThrs, params.maxDets = np.array([MATCH_IOU]), [max_detections]
    params.areaRng, params.areaRngLbl = [[0, 1e10]], ["all"]
    matched_truth, matched = _match(evaluator)
    # The copies may have other ids: those of the file may start at 0.
    for annotation, counted in zip(dataset["annotations"], truth.dataset["annotations"], strict=True):
        if not annotation.get("iscrowd") and counted["id"] not in matched_truth:
            images[annotation["image_id"]].missed.append(annotation)
    for number, result in enumerate(kept, start=1):  # the ids that COCO gives to results
        state = matched.get(number)
        if state == "hit":
            images[result["image_id"]].hits += 1
        elif state == "false":
            images[result["image_id"]].false.append(result)
    return _worst_first(images.values())


def _match(evaluator: COCOeval) -> tuple[set, dict[int, str]]:
    """Ids of the annotations that were found, and `hit` or `false` by the id of a detection; ignored ones have none."""
    with redirect_stdout(StringIO()):
        evaluator.evaluate()
    found, states = set(), {}
    for pair in evaluator.evalImgs:
        if pair is None:
            continue
        for number, match, ignored in zip(pair["dtIds"], pair["dtMatches"][0], pair["dtIgnore"][0], strict=True):
            if ignored:
                continue
            states[number] = "hit" if match else "false"
            if match:
                found.add(int(match))
    return found, states


def _worst_first(images: Iterable[ImageErrors]) -> list[ImageErrors]:
    return sorted(images, key=lambda image: (image.f1, -image.errors))
