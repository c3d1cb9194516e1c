"""COCO's objects as label maps: which label, which object is in front, and what is ignored."""

import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from shapes import REPO

BIG, SMALL, CROWD = [[0, 0, 8, 0, 8, 8, 0, 8]], [[2, 2, 4, 2, 4, 4, 2, 4]], {"size": [10, 12], "counts": [90, 30]}


def convert(annotations, output):
    command = [sys.executable, "datasets/coco_to_label_maps.py", str(annotations), str(output)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)


@pytest.fixture
def annotations(tmp_path):
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 12, "height": 10} for i in (1, 2)],
        "categories": [{"id": 90, "name": "kite"}, {"id": 7, "name": "coin"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": SMALL},
            {"id": 2, "image_id": 1, "category_id": 90, "segmentation": BIG},
            {"id": 3, "image_id": 1, "category_id": 90, "segmentation": CROWD, "iscrowd": 1},
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    return path


def test_labels(annotations, tmp_path):
    done = convert(annotations, tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    labels = np.asarray(Image.open(tmp_path / "maps" / "1.png"))
    assert labels.shape == (10, 12) and labels[3, 3] == 0 and labels[6, 6] == 1  # the small coin before the kite
    assert (labels[:, 9:] == 255).all() and set(np.unique(labels)) == {0, 1, 255}  # a crowd, and no object
    assert (np.asarray(Image.open(tmp_path / "maps" / "2.png")) == 255).all()
    assert (tmp_path / "maps.txt").read_text() == "coin\nkite\n"
    assert not (tmp_path / ".maps.tmp").exists()
    again = convert(annotations, tmp_path / "maps")
    assert again.returncode == 2 and "exists already" in again.stderr


def test_missing_file(tmp_path):
    done = convert(tmp_path / "a.json", tmp_path / "maps")
    assert done.returncode == 1 and "a.json does not exist" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.clear(), "it has no list of 'images'"),
        (lambda c: c["images"].clear(), "it lists no images"),
        (lambda c: c["images"][0].update(file_name="../1.jpg"), "'../1.jpg' must be a path below the image folder"),
        (lambda c: c["images"][0].update(file_name="/1.jpg"), "'/1.jpg' must be a path below the image folder"),
        (lambda c: c["images"][0].update(file_name="2.bmp"), "2.png would be the label map of two images"),
        (lambda c: c["categories"][0].update(name="coin"), "it names the category 'coin' twice"),
        (lambda c: c["annotations"][0].update(category_id=8), "it has no category 8, that of annotation 1"),
        (
            lambda c: c["annotations"][0].update(segmentation={"size": [1, 2], "counts": [2]}),
            "a mask has the size [1, 2]",
        ),
        (lambda c: c["images"][0].pop("width"), "an entry of 'images' has no 'width'"),
        (lambda c: c["annotations"][0].update(segmentation="abc"), "segmentation of annotation 1 cannot be read"),
        (lambda c: [a.pop("segmentation") for a in c["annotations"]], "none of its objects has a mask"),
    ],
)
def test_mistakes(annotations, tmp_path, change, message):
    """In this process: the interpreter's start would take most of the time."""
    content = json.loads(annotations.read_text())
    change(content)
    annotations.write_text(json.dumps(content))
    script = runpy.run_path(str(REPO / "datasets/coco_to_label_maps.py"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["coco_to_label_maps.py", str(annotations), str(tmp_path / "maps")])
        script["main"]()
    assert str(stopped.value).startswith(f"error: {annotations} cannot be drawn: ") and message in str(stopped.value)
    assert [p.name for p in tmp_path.iterdir()] == ["coco.json"]


def test_polygons_without_area_are_left_out(annotations, tmp_path):
    content = json.loads(annotations.read_text())
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
    annotations.write_text(json.dumps(content))
    runpy.run_path(str(REPO / "datasets/coco_to_label_maps.py"))["convert"](annotations, tmp_path / "maps")
    assert 0 not in np.asarray(Image.open(tmp_path / "maps" / "1.png"))
