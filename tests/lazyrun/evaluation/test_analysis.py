"""Figures and errors of an evaluation, on data sets small enough to work out by hand."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shapes import run_lengths

from lazyrun.evaluation.analysis import evaluate, find_errors


def square(x: float) -> dict:
    """A 40-pixel square at `(x, 10)`, with its polygon."""
    return {
        "bbox": [x, 10, 40, 40],
        "segmentation": [[x, 10, x + 40, 10, x + 40, 50, x, 50]],
        "area": 1600,
        "iscrowd": 0,
    }


@pytest.fixture
def dataset() -> dict:
    objects = [(1, 7, 0), (1, 7, 100), (2, 21, 0), (3, 7, 0)]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 100} for i in (1, 2, 3, 4)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 21, "name": "dog"}, {"id": 90, "name": "owl"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, **square(x)} for n, (i, c, x) in enumerate(objects, start=1)
        ],
    }


def found(image: int, category: int, x: float, score: float) -> dict:
    return {"image_id": image, "category_id": category, "bbox": [x, 10, 40, 40], "score": score}


RESULTS = [
    found(1, 7, 0, 0.9),  # hit
    found(1, 7, 2, 0.8),  # a second one on the same object
    found(2, 7, 0, 0.7),  # wrong class
    found(3, 7, 0, 0.3),  # below the threshold
]


def test_errors_by_hand(dataset):
    errors = find_errors(dataset, RESULTS, score_threshold=0.5)
    assert [e.image_id for e in errors] == [2, 3, 1, 4]  # by F1; more errors first
    by_image = {e.image_id: e for e in errors}
    assert (by_image[1].hits, len(by_image[1].missed), len(by_image[1].false)) == (1, 1, 1)
    assert by_image[1].missed[0]["id"] == 2 and by_image[1].false[0] is RESULTS[1]
    assert by_image[1].f1 == pytest.approx(0.5)
    assert (by_image[2].hits, len(by_image[2].missed), len(by_image[2].false)) == (0, 1, 1)
    assert by_image[4].f1 == 1  # nothing there, nothing found


def test_crowds_are_neither_missed_nor_false(dataset):
    dataset["annotations"][3]["iscrowd"] = 1
    dataset["annotations"][3]["segmentation"] = {"counts": [0, 20000], "size": [100, 200]}
    for results in (RESULTS, [*RESULTS, found(3, 7, 0, 0.95)], [found(3, 7, 0, 0.1)]):
        image = next(e for e in find_errors(dataset, results, 0.5) if e.image_id == 3)
        assert image.errors == 0 and image.hits == 0


def test_fields_that_converters_leave_out(dataset):
    expected = evaluate(dataset, RESULTS, "bbox").summary
    for annotation in dataset["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    np.testing.assert_equal(evaluate(dataset, RESULTS, "bbox").summary, expected)
    assert len(find_errors(dataset, RESULTS, 0.5)[0].missed) == 1


def test_annotations_counted_from_0(dataset):
    expected = evaluate(dataset, RESULTS, "bbox").summary, find_errors(dataset, RESULTS, 0.5)
    for annotation in dataset["annotations"]:
        annotation["id"] -= 1
    ours = evaluate(dataset, RESULTS, "bbox").summary, find_errors(dataset, RESULTS, 0.5)
    np.testing.assert_equal(ours[0], expected[0])
    assert [(e.image_id, e.hits, len(e.missed)) for e in ours[1]] == [
        (e.image_id, e.hits, len(e.missed)) for e in expected[1]
    ]
    assert dataset["annotations"][0]["id"] == 0


def test_missing_area_is_that_of_the_mask(dataset):
    for annotation in dataset["annotations"]:
        x, y, *_ = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]]  # 400 pixels, in a box of 1600
        del annotation["area"]
    summary = evaluate(dataset, RESULTS, "bbox").summary
    assert summary["APs"] > 0 and np.isnan(summary["APm"])


def test_nothing_above_the_threshold(dataset):
    errors = find_errors(dataset, RESULTS, score_threshold=0.99)
    assert errors[0].image_id == 1 and errors[0].f1 == 0 and len(errors[0].missed) == 2


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_figures_are_those_of_pycocotools(dataset, task, tmp_path):
    results = [{**r, "segmentation": run_lengths(square(r["bbox"][0])["segmentation"], 100, 200)} for r in RESULTS]
    (tmp_path / "truth.json").write_text(json.dumps(dataset))
    truth = COCO(str(tmp_path / "truth.json"))
    evaluator = COCOeval(truth, truth.loadRes([{k: v for k, v in r.items() if k != "bbox"} for r in results]), task)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    evaluation = evaluate(dataset, results, task)
    expected = np.where(evaluator.stats[:6] < 0, np.nan, 100 * evaluator.stats[:6])
    np.testing.assert_allclose(list(evaluation.summary.values()), expected, atol=1e-9)
    assert np.isnan(evaluation.class_ap["owl"]) and evaluation.class_count == {"cat": 3, "dog": 1, "owl": 0}
    assert "bbox" in results[0] and "id" not in results[0]  # what was given is left as it was
