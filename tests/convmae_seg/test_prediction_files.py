"""What is written for the predictions of a segmentation model: label maps, overlays with a legend, the classes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from convmae_seg.colors import class_colors
from convmae_seg.prediction_files import LabelMapWriter
from convmae_seg.predictor import SegmentationPredictor
from convmae_seg.visualization import _legend, draw_class_map
from lazyrun.inference.writer import predict_images
from pretrain.common.errors import UserError

NAMES = ["ground", "tree", "sky"]


class Halves(SegmentationPredictor):
    """Predicts class 2 in the upper half of any image and 0 below, without a model."""

    def __init__(self, categories, batch_size=2):
        self.categories, self.batch_size = categories, batch_size
        self.model = SimpleNamespace(num_classes=3)

    def __call__(self, images):
        maps = [np.zeros(image.shape[:2], np.int64) for image in images]
        for classes in maps:
            classes[: classes.shape[0] // 2] = 2
        return maps


def predict(tmp_path, categories, files=("a.jpg", "a.png", "b.jpg")):
    images = []
    for name in files:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), (90, 120, 60)).save(path)
        images.append(path)
    writer = LabelMapWriter(tmp_path / "out", Halves(categories), score_threshold=0.5, crops=False, masks=False)
    assert predict_images(writer, images, {p: i for i, p in enumerate(images, start=1)}) == []
    writer.close()
    assert writer.summary() == "3 images"
    return json.loads((tmp_path / "out/images.json").read_text())


@pytest.mark.parametrize("first", [0, 1, 300])
def test_files(tmp_path, first):
    listed = predict(tmp_path, [{"id": first + i, "name": name} for i, name in enumerate(NAMES)])
    assert [c["id"] for c in listed["categories"]] == [first, first + 1, first + 2]
    assert [c["name"] for c in listed["categories"]] == NAMES
    assert [i["label_map"] for i in listed["images"]] == ["labels/a.png", "labels/a.png.png", "labels/b.png"]
    for image in listed["images"]:
        labels = np.asarray(Image.open(tmp_path / "out" / image["label_map"]))
        assert labels.dtype == (np.uint16 if first > 255 else np.uint8) and labels.shape == (20, 30)
        assert (labels[:10] == first + 2).all() and (labels[10:] == first).all()
    assert {p.name for p in (tmp_path / "out/overlays").iterdir()} == {"a.jpg", "a.png", "b.jpg"}
    assert not (tmp_path / "out/predictions.json").exists()


def test_without_names_of_classes(tmp_path):
    assert [c["name"] for c in predict(tmp_path, [])["categories"]] == ["class 0", "class 1", "class 2"]


def test_what_detectors_write_is_refused(tmp_path):
    with pytest.raises(UserError, match="--save-crops and --save-masks are for detectors"):
        LabelMapWriter(tmp_path / "out", Halves([]), score_threshold=0.5, crops=True, masks=False)
    assert not (tmp_path / "out").exists()


def test_a_line_of_pixels_is_not_enlarged_without_bounds():
    picture = draw_class_map(np.zeros((1, 900, 3), np.uint8), np.zeros((1, 900), int), ["a"], class_colors(1))
    assert picture.shape[0] == 2 and picture.shape[1] < 2400


def test_pictures_have_one_size_whatever_is_present():
    image, colors = np.full((400, 600, 3), 128, np.uint8), class_colors(3)
    one = draw_class_map(image, np.zeros((400, 600), int), NAMES, colors)
    halves = np.zeros((400, 600), int)
    halves[:100], halves[300:] = 2, 255
    many = draw_class_map(image, halves, NAMES, colors)
    assert one.shape == many.shape and one.shape[0] == 400
    assert (many[350, 100] == 128).all()  # no class, left as it is
    expected = 0.45 * 128 + 0.55 * np.array(colors[2])
    assert np.abs(many[50, 100] - expected).max() <= 1
    swatches = [color for color in colors if (many[:, 600:] == color).all(-1).any()]
    assert swatches == [colors[0], colors[2]]  # classes present alone


def test_the_legend_says_what_finds_no_room():
    names = [f"class number {i}" for i in range(100)]
    entries = [(name, (10, 20, 30), 0.01) for name in names]
    panel = _legend(entries, names, 320)
    assert panel.shape[0] == 320 and (panel[-3:] == 255).all() and (panel[:, -3:] == 255).all()
    rows = (panel == (10, 20, 30)).all(-1).any(1)
    assert 10 < (np.diff(rows.astype(int)) == 1).sum() < 25
