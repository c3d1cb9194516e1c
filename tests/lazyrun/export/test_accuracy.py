"""AP of a model and of its file: of the same results it is the same, and what the file lacks counts."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lazyrun.evaluation.truth import Truth
from lazyrun.export.accuracy import Accuracy
from lazyrun.onnx_runner.detections import Detections
from pretrain.common.errors import UserError

CATEGORIES = [{"id": 3, "name": "cat"}]


def truth(folder: Path) -> Truth:
    """Two images with one object each, by other ids than those of a model."""
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 20, "height": 20} for n in (7, 8)]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 10, 10], "area": 100, "iscrowd": 0,
         "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]}
        for n in (7, 8)
    ]  # fmt: skip
    dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}], "left_out": []}
    return Truth(folder / "val.json", dataset, folder)


def found(count: int = 1) -> Detections:
    boxes = np.array([[2, 2, 12, 12]], np.float32)
    everything = Detections((20, 20), boxes, np.ones(1, np.float32), np.zeros(1, int), np.ones((1, 28, 28), np.float32))
    return everything[np.arange(1) < count]


@pytest.mark.parametrize(("counts", "second"), [((1, 1), 100), ((1, 0), 50.495)])
def test_both_are_evaluated(tmp_path, counts, second):
    images = [tmp_path / "7.jpg", tmp_path / "8.jpg"]
    predictor = SimpleNamespace(categories=CATEGORIES, to_coco=lambda eager, number: eager.to_coco(number, CATEGORIES))
    accuracy = Accuracy(truth(tmp_path), images)
    for image, count in zip(images, counts, strict=True):
        accuracy.add(image, predictor, found(), found(count))
    assert accuracy.average_precisions() == {
        "box AP": (pytest.approx(100), pytest.approx(second, abs=1e-3)),
        "mask AP": (pytest.approx(100), pytest.approx(second, abs=1e-3)),
    }


def test_other_images_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"9\.jpg is not among those of"):
        Accuracy(truth(tmp_path), [tmp_path / "9.jpg"])
