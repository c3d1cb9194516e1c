"""Perfect predictions have an AP of 100 whatever the oddities of the annotation file, with either implementation."""

import copy
import json

import pytest
from tiny_coco import content, evaluate, perfect, run_lengths, write

from lazyrun.evaluation.analysis import evaluate as evaluate_results
from lazyrun.evaluation.analysis import find_errors
from lazyrun.evaluation.results import match_results
from lazyrun.evaluation.truth import read_truth

TRUTH = content()
ALL = perfect(TRUTH)


def of_all(**values):
    def change(data):
        for annotation in data["annotations"]:
            annotation.update({k: v(annotation) if callable(v) else v for k, v in values.items()})

    return change


def of_first(**values):
    return lambda data: data["annotations"][0].update(values)


def renamed_images(new):
    def change(data):
        for image in data["images"]:
            image["id"] = new(image["id"])
        for annotation in data["annotations"]:
            annotation["image_id"] = new(annotation["image_id"])

    return change


def sizes(data):
    for image in data["images"]:
        image["width"] = float(image["width"])


ODDITIES = {
    "float ids": of_all(id=lambda a: float(a["id"])),
    "negative ids": of_all(id=lambda a: -a["id"]),
    "ids around 0": of_all(id=lambda a: a["id"] - 5),
    "uuids": of_all(id=lambda a: f"4f1c-{a['id']}"),
    "float image ids": of_all(image_id=lambda a: float(a["image_id"])),
    "text image ids": renamed_images(lambda i: f"img_{i}"),
    "huge image ids": renamed_images(lambda i: 2**60 + i),
    "float widths": sizes,
    "no iscrowd": of_all(iscrowd=None),
    "ignore 0": of_all(ignore=0),
    "flat lists": of_all(segmentation=lambda a: a["segmentation"][0]),
    "run lengths": of_all(segmentation=run_lengths),
    "flat run lengths": of_all(segmentation=lambda a: run_lengths(a)["counts"]),
    "a polygon of two points": of_first(segmentation=[[35, 20, 35, 28]]),
    "a polygon of one point": of_first(segmentation=[[35, 20]]),
    "an empty polygon": of_first(segmentation=[[]]),
    "a short polygon beside one": lambda d: d["annotations"][0]["segmentation"].insert(0, [35, 20, 35, 28]),
}


@pytest.mark.parametrize("use_fast_impl", [True, False])
@pytest.mark.parametrize("oddity", ODDITIES)
def test_perfect_predictions(tmp_path, oddity, use_fast_impl):
    data = copy.deepcopy(TRUTH)
    ODDITIES[oddity](data)
    file = write(tmp_path, data)
    results = evaluate(file, dict(zip([i["id"] for i in data["images"]], ALL.values(), strict=True)),
                       use_fast_impl=use_fast_impl)  # fmt: skip
    for task in ("bbox", "segm"):
        for metric in ("AP", "AP-disc", "AP-box", "AP-kite"):
            assert results[task][metric] == pytest.approx(100), (task, metric)


@pytest.mark.parametrize("found", ["nothing", "an empty mask", "the object"])
def test_an_object_without_a_usable_mask_counts_neither_way(tmp_path, found):
    data = copy.deepcopy(TRUTH)
    data["annotations"][0]["segmentation"] = [[35, 20, 35, 28]]
    predictions = copy.deepcopy(ALL)
    if found == "nothing":
        predictions[1] = predictions[1][1:]
    elif found == "an empty mask":
        predictions[1].pred_masks[0] = False
    results = evaluate(write(tmp_path, data), predictions, output_dir=str(tmp_path))
    assert results["bbox"]["AP"] == results["segm"]["AP"] == pytest.approx(100)
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert len(written) == len(TRUTH["annotations"]) - (found == "nothing")  # all detections, counted or not


def test_boxes_without_area(tmp_path):
    data = copy.deepcopy(TRUTH)
    for number, annotation in enumerate(data["annotations"]):
        annotation["segmentation"] = []
        if number % 3 == 0:
            annotation["bbox"] = [0, 0, 0, 0]
    left = copy.deepcopy(TRUTH)
    left["annotations"] = [a for n, a in enumerate(left["annotations"]) if n % 3]
    assert evaluate(write(tmp_path, data), perfect(left), tasks=["bbox"])["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("oddity", ["text image ids", "a polygon of two points", "float ids"])
def test_reports_see_what_the_evaluation_sees(tmp_path, oddity):
    data = copy.deepcopy(TRUTH)
    ODDITIES[oddity](data)
    file = write(tmp_path, data, encoding="utf-16")
    ids = [i["id"] for i in data["images"]]
    evaluate(file, dict(zip(ids, ALL.values(), strict=True)), output_dir=str(tmp_path))
    path = tmp_path / "coco_instances_results.json"
    assert {r["image_id"] for r in json.loads(path.read_text())} == set(ids)
    dataset, results = match_results(path, read_truth(file, tmp_path))
    assert [evaluate_results(dataset, results, t).summary["AP"] for t in ("bbox", "segm")] == pytest.approx([100, 100])
    assert sum(e.errors for e in find_errors(dataset, results, 0.5)) == 0


def test_images_with_many_objects(tmp_path):
    """More objects than COCO counts: found by both when the number is set, and in the report without being told."""
    data = content(1)
    first = data["annotations"][0]
    data["annotations"] = [
        {**first, "id": n + 1, "bbox": [n % 16 * 4, n // 16 * 4, 3, 3], "area": 9, "segmentation": [square(n)]}
        for n in range(160)
    ]
    file, found = write(tmp_path, data), perfect(data)
    assert evaluate(file, found)["bbox"]["AP"] < 70
    for fast in (True, False):
        results = evaluate(file, found, max_dets_per_image=160, use_fast_impl=fast, output_dir=str(tmp_path))
        assert results["bbox"]["AP"] == results["segm"]["AP"] == pytest.approx(100)
    path = tmp_path / "coco_instances_results.json"
    dataset, results = match_results(path, read_truth(file, tmp_path))
    assert evaluate_results(dataset, results, "bbox").summary["AP"] == pytest.approx(100)
    assert evaluate_results(dataset, results, "bbox", max_detections=100).summary["AP"] < 70
    assert sum(e.errors for e in find_errors(dataset, results, 0.5)) == 0


def square(number: int) -> list[int]:
    x, y = number % 16 * 4, number // 16 * 4
    return [x, y, x + 3, y, x + 3, y + 3, x, y + 3]
