"""Metrics from class maps against their definitions."""

import json

import numpy as np
import pytest
import torch
from detectron2 import evaluation
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from convmae_seg.evaluation import SemSegEvaluator
from pretrain.common.errors import UserError

CLASSES = ["sky", "tree", "road", "lamp"]


def read(path, metadata) -> np.ndarray:
    labels = np.asarray(Image.open(path)).astype(np.int64)
    assert labels.max() == 255 and len(metadata.stuff_classes) == 4
    return labels


@pytest.fixture
def images(tmp_path):
    """A registered data set of two images without a lamp, as `{file name: label map}`."""
    random = np.random.default_rng(0)
    labels = {}
    for i, size in enumerate([(20, 30), (25, 10)]):
        label = random.integers(0, 3, size, dtype=np.uint8)
        label[:4] = 255
        Image.fromarray(label).save(tmp_path / f"{i}.png")
        labels[f"{i}.jpg"] = label.astype(np.int64)
    records = [{"file_name": f"{i}.jpg", "sem_seg_file_name": str(tmp_path / f"{i}.png")} for i in range(2)]
    DatasetCatalog.register("evaluated", lambda: records)
    MetadataCatalog.get("evaluated").set(stuff_classes=CLASSES, ignore_label=255)
    yield labels
    DatasetCatalog.remove("evaluated")
    MetadataCatalog.remove("evaluated")


def evaluate(images, predictions, output_dir=None) -> dict:
    evaluator = SemSegEvaluator("evaluated", output_dir=output_dir, load_label_map=read)
    evaluator.reset()
    for name, prediction in zip(images, predictions, strict=True):
        evaluator.process([{"file_name": name}], [prediction])
    return evaluator.evaluate()["sem_seg"]


def test_metrics(images, tmp_path, caplog):
    random = np.random.default_rng(1)
    maps = [torch.as_tensor(random.integers(0, 4, label.shape)) for label in images.values()]
    with caplog.at_level("INFO"):
        metrics = evaluate(images, [{"classes": m} for m in maps], str(tmp_path / "out"))
    label = np.concatenate([label.ravel() for label in images.values()])
    seen = np.concatenate([m.numpy().ravel() for m in maps])[label != 255]
    label = label[label != 255]
    iou = [((seen == c) & (label == c)).sum() / ((seen == c) | (label == c)).sum() for c in range(3)]
    accuracy = [(seen == label)[label == c].mean() for c in range(3)]
    assert metrics["mIoU"] == pytest.approx(100 * np.mean(iou))
    assert metrics["mACC"] == pytest.approx(100 * np.mean(accuracy))
    assert metrics["pACC"] == pytest.approx(100 * (seen == label).mean())
    assert metrics["fwIoU"] == pytest.approx(100 * np.dot(iou, [(label == c).mean() for c in range(3)]))
    for c, name in enumerate(CLASSES[:3]):
        assert metrics[f"IoU-{name}"] == pytest.approx(100 * iou[c])
        assert metrics[f"ACC-{name}"] == pytest.approx(100 * accuracy[c])
    assert np.isnan(metrics["IoU-lamp"]) and not any("Boundary" in name for name in metrics)
    assert f"{100 * iou[0]:.2f}" in caplog.text
    predictions = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    assert {p["file_name"] for p in predictions} == set(images)


def test_logits_are_taken_too(images):
    logits = [torch.randn(4, *label.shape) for label in images.values()]
    ours = evaluate(images, [{"classes": x.argmax(0)} for x in logits])
    assert evaluate(images, [{"sem_seg": x} for x in logits]) == pytest.approx(ours, nan_ok=True)
    reference = evaluation.SemSegEvaluator(
        "evaluated", sem_seg_loading_fn=lambda p, dtype: read(p, MetadataCatalog.get("evaluated"))
    )
    reference.reset()
    reference.process([{"file_name": name} for name in images], [{"sem_seg": x} for x in logits])
    expected = reference.evaluate()["sem_seg"]
    assert {k: v for k, v in expected.items() if "B-I" not in k and "Boundary" not in k} == pytest.approx(
        ours, nan_ok=True
    )


def test_perfect_predictions(images):
    classes = [{"classes": torch.as_tensor(np.where(label == 255, 0, label))} for label in images.values()]
    metrics = evaluate(images, classes)
    assert all(metrics[name] == 100 for name in ("mIoU", "fwIoU", "mACC", "pACC"))


def test_maps_that_do_not_fit(images):
    with pytest.raises(UserError, match=r"Label map .*0\.png has 30x20 pixels, but its image 0\.jpg has 20x30"):
        evaluate(images, [{"classes": torch.zeros(30, 20, dtype=torch.int64)}] * 2)
    with pytest.raises(UserError, match=r"sees class 4 in 0\.jpg, but evaluated has 4 classes, 0 to 3"):
        evaluate(images, [{"classes": torch.full((20, 30), 4)}] * 2)
