"""COCO metrics are those of pycocotools, whichever implementation computes them."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_api

from lazyrun.evaluation.coco import COCOEvaluator

SIZE = 200
CLASSES = ("disc", "box", "never")


def draw(rng: np.random.Generator, kind: int, x: float, y: float, side: float) -> np.ndarray:
    """The mask of a disc or a square; a pixel or two of size and place are random."""
    x, y, side = (v + rng.normal(0, 0.04 * side) for v in (x, y, side))
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    if kind == 0:
        return (rows - y) ** 2 + (columns - x) ** 2 < (side / 2) ** 2
    return (abs(rows - y) < side / 2) & (abs(columns - x) < side / 2)


def run_length(mask: np.ndarray) -> dict:
    encoded = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@pytest.fixture
def world():
    """Ground truth of all sizes with crowds, and detections: noisy ones, doubles, wrong classes, false alarms."""
    rng = np.random.default_rng(0)
    images, annotations, detections = [], [], {}
    for image_id in range(1, 13):
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": SIZE, "height": SIZE})
        found = detections[image_id] = []
        for _ in range(0 if image_id == 12 else rng.integers(1, 6)):
            kind, side = int(rng.integers(2)), float(rng.choice([14, 25, 60, 90, 150]))
            place = (kind, *rng.uniform(side / 3, SIZE - side / 3, 2), side)
            mask = draw(rng, *place)
            segmentation = run_length(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": kind + 3,
                    "bbox": mask_api.toBbox(segmentation).tolist(),
                    "area": float(mask.sum()),
                    "segmentation": segmentation,
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
            for _ in range(rng.integers(0, 4)):
                found.append((draw(rng, *place), kind if rng.random() < 0.9 else 1 - kind))
        found.append((draw(rng, 1, *rng.uniform(20, 180, 2), 30), 1))
    categories = [{"id": i + 3, "name": name} for i, name in enumerate(CLASSES)]
    # Some scores are equal: the order of equals decides, too.
    scores = {image_id: np.round(rng.random(len(found)), 1) for image_id, found in detections.items()}
    return {"images": images, "annotations": annotations, "categories": categories}, detections, scores


@pytest.fixture
def register(tmp_path):
    names = []

    def write(content: dict) -> str:
        name = f"evaluation_{len(names)}"
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        register_coco_instances(name, {}, str(tmp_path / f"{name}.json"), str(tmp_path))
        MetadataCatalog.get(name).set(
            thing_classes=list(CLASSES), thing_dataset_id_to_contiguous_id={i + 3: i for i in range(len(CLASSES))}
        )
        names.append(name)
        return name

    yield write
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def evaluate(name: str, detections: dict, scores: dict, **options) -> dict:
    evaluator = COCOEvaluator(name, **options)
    evaluator.reset()
    process(evaluator, detections, scores)
    return evaluator.evaluate()


def process(evaluator: COCOEvaluator, detections: dict, scores: dict) -> None:
    for image_id, found in detections.items():
        masks = np.array([mask for mask, _ in found]).reshape(-1, SIZE, SIZE)
        boxes = [mask_api.toBbox(run_length(mask)) for mask in masks]
        instances = Instances((SIZE, SIZE))
        corners = torch.tensor(np.array(boxes).reshape(-1, 4)).float()
        corners[:, 2:] += corners[:, :2]
        instances.pred_boxes = Boxes(corners)
        instances.scores = torch.tensor(scores[image_id][: len(found)])
        instances.pred_classes = torch.tensor([kind for _, kind in found], dtype=torch.long)
        instances.pred_masks = torch.tensor(masks)
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])


def test_fast_metrics_equal_those_of_pycocotools(world, register, caplog):
    pytest.importorskip("faster_coco_eval")
    content, detections, scores = world
    name = register(content)
    with caplog.at_level("INFO", "lazyrun"):
        ours = evaluate(name, detections, scores)
        expected = evaluate(name, detections, scores, use_fast_impl=False)
    assert [r.getMessage() for r in caplog.records if r.name == "lazyrun.evaluation.coco"] == [
        "COCO metrics by faster_coco_eval.",
        "COCO metrics by pycocotools.",
    ]
    assert ours.keys() == expected.keys() == {"bbox", "segm"}
    for task, metrics in expected.items():
        assert ours[task].keys() == metrics.keys()
        assert metrics.keys() >= {"AP", "AP50", "AP75", "APs", "APm", "APl", *(f"AP-{c}" for c in CLASSES)}
        for metric, value in metrics.items():
            assert ours[task][metric] == pytest.approx(value, abs=1e-6, nan_ok=True), (task, metric)
            assert math.isnan(value) == (metric == "AP-never")
        assert 5 < metrics["AP"] < 95 and len({metrics[f"AP{size}"] for size in "sml"}) == 3


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_annotations_may_leave_out_what_has_an_obvious_value(world, register, use_fast_impl):
    content, detections, scores = world
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    expected = evaluate(register(content), detections, scores, use_fast_impl=use_fast_impl)
    for annotation in content["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    ours = evaluate(register(content), detections, scores, use_fast_impl=use_fast_impl)
    for task, metrics in expected.items():
        assert ours[task] == pytest.approx(metrics, nan_ok=True)


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_annotations_counted_from_zero_are_all_found(world, register, use_fast_impl):
    content, detections, scores = world
    expected = evaluate(register(content), detections, scores, use_fast_impl=use_fast_impl)
    first = min(annotation["id"] for annotation in content["annotations"])
    for annotation in content["annotations"]:
        annotation["id"] -= first
    ours = evaluate(register(content), detections, scores, use_fast_impl=use_fast_impl)
    for task, metrics in expected.items():
        assert ours[task] == pytest.approx(metrics, nan_ok=True)


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_nothing_found_is_zero(world, register, use_fast_impl):
    """Every task and class with ground truth has an AP of 0; NaN is left for those without."""
    content, detections, scores = world
    results = evaluate(register(content), {i: [] for i in detections}, scores, use_fast_impl=use_fast_impl)
    few = {i: [((np.ones((SIZE, SIZE), bool)), 2)] for i in detections}  # of the class that has no object
    expected = evaluate(register(content), few, scores, use_fast_impl=use_fast_impl)
    assert results.keys() == expected.keys() == {"bbox", "segm"}
    for task, metrics in expected.items():
        assert results[task] == pytest.approx(metrics, nan_ok=True), task
        assert metrics["AP"] == metrics["APs"] == metrics["AP-disc"] == 0 and math.isnan(metrics["AP-never"])


@pytest.mark.parametrize("limit", [1, 5, 300])
def test_any_number_of_detections_by_either_implementation(world, register, limit):
    pytest.importorskip("faster_coco_eval")
    content, detections, scores = world
    name = register(content)
    ours = evaluate(name, detections, scores, max_dets_per_image=limit)
    expected = evaluate(name, detections, scores, max_dets_per_image=limit, use_fast_impl=False)
    assert COCOEvaluator(name, max_dets_per_image=limit).implementation.__module__.startswith("faster_coco_eval")
    for task, metrics in expected.items():
        assert ours[task] == pytest.approx(metrics, abs=1e-6, nan_ok=True)
    usual = evaluate(name, detections, scores)["bbox"]["AP"]
    assert (expected["bbox"]["AP"] == pytest.approx(usual)) == (limit > 100)


def test_pycocotools_where_the_fast_one_is_missing(world, register, monkeypatch):
    name = register(world[0])
    monkeypatch.setattr("lazyrun.evaluation.coco.COCOeval_faster", None)
    assert COCOEvaluator(name).implementation.__module__ == "pycocotools.cocoeval"


def test_objects_of_unusable_images_are_not_missed(world, register):
    content, detections, scores = world
    name = register(content)
    evaluator = COCOEvaluator(name, distributed=False)
    evaluator.reset()
    evaluator.leave_out(3)
    left = {i: found for i, found in detections.items() if i != 3}
    process(evaluator, left, scores)
    ours = evaluator.evaluate()
    content["images"] = [i for i in content["images"] if i["id"] != 3]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 3]
    expected = evaluate(register(content), left, scores)
    for task, metrics in expected.items():
        assert ours[task] == pytest.approx(metrics, nan_ok=True)


def test_chosen_images_are_not_searched_for_one_by_one(world, register, tmp_path):
    class Ids(list):
        def __contains__(self, image_id):
            raise AssertionError("a search through all images for each of them, or each object")

    content, detections, scores = world
    evaluator = COCOEvaluator(register(content), distributed=False, output_dir=str(tmp_path))
    evaluator.reset()
    process(evaluator, detections, scores)
    evaluator.evaluate(Ids([1, 2]))
    assert [i["id"] for i in json.loads((tmp_path / "images.json").read_text())["images"]] == [1, 2]
    evaluator.reset()
    process(evaluator, {1: []}, scores)
    assert evaluator.evaluate(Ids([1]))["bbox"]["AP"] == 0
