"""COCO's objects as label maps: which label, which object is in front, and what is ignored."""

import json
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


@pytest.mark.parametrize(("content", "message"), [("{}", "is not a COCO annotation file"), (None, "does not exist")])
def test_mistakes(tmp_path, content, message):
    if content:
        (tmp_path / "a.json").write_text(content)
    done = convert(tmp_path / "a.json", tmp_path / "maps")
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "maps").exists()
