"""AP of a detector and of its exported file on the same annotated images."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lazyrun.evaluation.analysis import evaluate
from lazyrun.evaluation.results import LISTING, match_results
from lazyrun.evaluation.truth import Truth, image_ids
from lazyrun.inference.journal import save_json_list
from lazyrun.onnx_runner.detections import Detections
from pretrain.common.files import save_json

__all__ = ["Accuracy"]

TASKS = {"bbox": "box AP", "segm": "mask AP"}


class Accuracy:
    """Collects what two models find in annotated images, and evaluates both as COCO does.

    Args:
        truth: the annotations; images and classes are matched with them by name.
        images: files that will be added.

    Raises:
        UserError: a file is none of the annotated images.
    """

    def __init__(self, truth: Truth, images: Sequence[Path]):
        self.truth, self.ids = truth, image_ids(images, truth)
        self.results: tuple[list[dict], list[dict]] = ([], [])
        self.categories: list[dict] = []

    def add(self, image: Path, predictor: Any, eager: Any, found: Detections) -> None:
        """Takes in what a predictor and its exported file found in one image."""
        self.categories = predictor.categories
        self.results[0].extend(predictor.to_coco(eager, self.ids[image]))
        self.results[1].extend(found.to_coco(self.ids[image], predictor.categories))

    def average_precisions(self) -> dict[str, tuple[float, float]]:
        """By name of the figure, in [0, 100]: that of the model and that of the file.

        Raises:
            UserError: one of them finds nothing, or has other classes than the annotations.
        """
        (dataset, eager), (_, found) = (self._matched(results) for results in self.results)
        masks = any("segmentation" in result for result in eager)
        return {
            name: (evaluate(dataset, eager, task).summary["AP"], evaluate(dataset, found, task).summary["AP"])
            for task, name in TASKS.items()
            if task == "bbox" or masks
        }

    def _matched(self, results: list[dict]) -> tuple[dict, list[dict]]:
        """The ground truth of the images that were compared, and the results with its ids."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "predictions.json"
            images = [{"id": number, "file_name": str(file.resolve())} for file, number in self.ids.items()]
            save_json({"images": images, "categories": self.categories}, path.parent / LISTING)
            save_json_list(results, path)
            return match_results(path, self.truth)
