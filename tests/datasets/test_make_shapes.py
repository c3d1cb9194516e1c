"""The generated data set is repeatable, sound, and refuses to overwrite."""

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
from pycocotools import mask as mask_util
from shapes import REPO, make_shapes

from lazyrun.data.coco_check import check_coco_json


def digest(folder) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def test_same_seed_same_files_and_splits_differ(tmp_path):
    first, second = (make_shapes(tmp_path / name, train=4, val=4) / "shapes" for name in ("a", "b"))
    assert digest(first) == digest(second)
    assert digest(first / "train") != digest(first / "val")


def test_annotations_are_sound(shapes):
    root = shapes / "shapes"
    annotation_file = root / "annotations" / "instances_train.json"
    report = check_coco_json("shapes", str(annotation_file), str(root / "train"), training=True, masks=True)
    assert report.faults == [] and report.categories == 4 and report.degenerate_boxes == 0
    for annotation in json.loads(annotation_file.read_text())["annotations"]:
        mask = mask_util.decode(mask_util.merge(mask_util.frPyObjects(annotation["segmentation"], 64, 64)))
        x, y, w, h = annotation["bbox"]
        assert abs(np.flatnonzero(mask.any(1))[0] - y) <= 1 and abs(np.flatnonzero(mask.any(0))[0] - x) <= 1
        assert mask.sum() <= w * h and abs(int(mask.sum()) - annotation["area"]) <= 0.35 * annotation["area"]
        assert x >= 0 and x + w <= 64 and y >= 0 and y + h <= 64


def test_does_not_overwrite(shapes):
    command = [sys.executable, "datasets/make_shapes.py", str(shapes / "shapes")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "exists already; remove it or name another folder" in done.stderr


def test_seed_and_place_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    for arguments, message in (
        ([tmp_path / "a", "--seed", "-1"], "--seed must be at least 0"),
        ([tmp_path / "file" / "a"], "file/a cannot be written: "),
    ):
        command = [sys.executable, "datasets/make_shapes.py", *map(str, arguments)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_label_maps_agree_with_the_annotations(shapes):
    root = shapes / "shapes"
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    for image in content["images"]:
        labels = cv2.imread(str(root / "labels" / "train" / f"{image['id']:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (64, 64) and labels.max() <= 4
        ours = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert {a["category_id"] for a in ours} <= set(np.unique(labels)) - {0}
        for label in range(1, 5):  # annotations leave out slivers
            area = sum(a["area"] for a in ours if a["category_id"] == label)
            assert area <= (labels == label).sum() <= area + 30
