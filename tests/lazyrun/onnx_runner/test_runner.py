"""The runner needs NumPy, ONNX Runtime and Pillow alone, and writes what `tools/predict.py` writes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from onnx_files import constant_model
from PIL import Image
from tiny_models import pictures

from lazyrun.onnx_runner.__main__ import main
from lazyrun.onnx_runner.detections import decode_mask
from lazyrun.onnx_runner.metadata import Metadata, OnnxFileError
from lazyrun.onnx_runner.model import OnnxModel

BLOCKED = (
    "torch",
    "torchvision",
    "detectron2",
    "timm",
    "pretrain",
    "cv2",
    "pycocotools",
    "matplotlib",
    "scipy",
    "onnx",
)


@pytest.fixture
def detector(tmp_path):
    """A file that finds the same two objects in every image of 50 pixels."""
    outputs = {
        "boxes": np.array([[[5, 10, 25, 30], [0, 0, 20, 10], [0, 0, 0, 0]]], np.float32),
        "scores": np.array([[0.9, 0.3, 0]], np.float32),
        "classes": np.array([[1, 0, -1]]),
        "masks": np.ones((1, 3, 4, 4), np.float32),
    }
    metadata = Metadata(
        task="detection",
        categories=[{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        input_format="RGB",
        resizing=[{"step": "shortest_edge", "short_edge": 40, "max_size": 50}],
        largest=[50, 50],
    )
    return constant_model(tmp_path / "detector.onnx", outputs, metadata)


@pytest.fixture
def photos(tmp_path):
    """Two pictures and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(pictures(2)):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_predicts_without_torch(detector, photos, tmp_path):
    code = (
        f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
        "from lazyrun.onnx_runner.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(detector), str(photos), "--output", str(tmp_path / "out")]
    command += ["--slice", "100"]  # the pictures are smaller
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 3, run.stderr
    assert "1 files cannot be read as images and were skipped" in run.stderr and "broken.jpg" in run.stderr
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    images = json.loads((tmp_path / "out/images.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in results] == [(1, 8), (1, 3), (2, 8), (2, 3)]
    assert [entry["file_name"].rsplit("/")[-1] for entry in images["images"]] == ["0.png", "1.png"]
    assert images["categories"][1] == {"id": 8, "name": "dog"}
    # 60x80 pixels became 38x50: one in the network's image is 1.6 in the file's
    assert results[0]["bbox"] == pytest.approx([8, 10 * 60 / 38, 32, 20 * 60 / 38], abs=1e-4)
    mask = decode_mask(results[0]["segmentation"])
    assert mask.shape == (60, 80) and mask[20:40, 12:36].all() and not mask[:10].any()
    overlay = np.asarray(Image.open(tmp_path / "out/overlays/0.png"))
    original = np.asarray(Image.open(photos / "0.png"))
    changed = (overlay != original).any(2)
    assert changed[20:40, 12:36].all() and not changed[:, 60:].any()  # the object of score 0.3 is not drawn


def test_segmentation_and_classification(photos, tmp_path):
    (photos / "broken.jpg").unlink()
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[:, 1, :, 2:] = 1
    common = {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "input_format": "BGR"}
    whole = {"resizing": [{"step": "pad", "height": 90, "width": 90, "value": 0}], "largest": [90, 90]}
    windows = Metadata(task="segmentation", windows={"size": 90, "stride": 60}, **common, **whole)
    file = constant_model(tmp_path / "segmentation.onnx", {"logits": logits}, windows)
    assert main([str(file), str(photos), "--output", str(tmp_path / "labels")]) == 0
    (entry, _) = json.loads((tmp_path / "labels/images.json").read_text())["images"]
    labels = np.asarray(Image.open(tmp_path / "labels" / entry["label_map"]))
    assert (labels[:, :30] == 1).all() and (labels[:, 50:] == 2).all()

    probabilities = np.array([[0.25, 0.75]], np.float32)
    classifier = Metadata(task="classification", **common, **whole)
    file = constant_model(tmp_path / "classifier.onnx", {"probabilities": probabilities}, classifier)
    assert OnnxModel(file)(photos / "0.png").tolist() == [0.25, 0.75]
    assert main([str(file), str(photos), "--output", str(tmp_path / "classes")]) == 0
    results = json.loads((tmp_path / "classes/predictions.json").read_text())
    assert results[1] == {"image_id": 2, "probabilities": [0.25, 0.75]}


def test_slices(detector):
    """The file finds the same two objects in each slice, and in the whole image."""
    model = OnnxModel(detector)
    alone = model(np.zeros((50, 50, 3), np.uint8))
    found = model(np.zeros((50, 100, 3), np.uint8), slice=50, slice_overlap=0.0, slice_whole=False)
    assert found.size == (50, 100) and found.soft_masks.shape == (4, 4, 4)
    assert found.scores.tolist() == alone.scores.repeat(2).tolist() and found.classes.tolist() == [1, 1, 0, 0]
    assert (found.boxes[1::2] - found.boxes[::2]).tolist() == [[50, 0, 50, 0]] * 2
    options = {"slice": 50, "slice_overlap": 0.0}
    assert len(model(np.zeros((50, 100, 3), np.uint8), **options)) == 6
    model.score_threshold = 0.5
    assert model(np.zeros((50, 100, 3), np.uint8), **options).classes.tolist() == [1, 1, 1]


def test_mistakes(detector, photos, tmp_path, capsys):
    model = OnnxModel(detector)
    with pytest.raises(OnnxFileError, match=r"slice_overlap=1\.0 must be at least 0 and below 1"):
        model(np.zeros((4, 4, 3), np.uint8), slice=2, slice_overlap=1.0)
    assert main([str(detector), str(photos), "--output", str(tmp_path / "out"), "--slice", "0"]) == 1
    assert "error: slice=0 must be a whole number of pixels" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(detector), str(photos), "--output", str(tmp_path / "out"), "--overlap", "0.5"])
    assert "are of use with --slice PIXELS" in capsys.readouterr().err
    with pytest.raises(OnnxFileError, match="must be RGB uint8"):
        model(np.zeros((4, 4), np.uint8))
    with pytest.raises(OnnxFileError, match="takes images of up to 50x50 pixels, got 60x40"):
        model.run(np.zeros((1, 3, 40, 60), np.float32))
    with pytest.raises(OnnxFileError, match="format 99, this version reads 1"):
        Metadata.from_strings({"lazyrun.format": "99"}, "a.onnx")
    assert main([str(detector), str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 1
    assert "nowhere names no image" in capsys.readouterr().err
