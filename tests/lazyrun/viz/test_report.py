"""The report's page and pictures."""

import base64
import json
import re

import cv2
import numpy as np
import pytest
from shapes import run_lengths

from lazyrun.viz.report import write_report
from pretrain.common.errors import UserError


@pytest.fixture(scope="module")
def evaluated(shapes):
    """A data set, and detections: every object but those of the third image, shifted in the second."""
    folder = shapes / "shapes"
    dataset = json.loads((folder / "annotations" / "instances_val.json").read_text())
    dataset["categories"][0]["name"] = "<b>&bold"
    dataset["categories"][1]["name"] = r"$\frac$"
    ids = sorted({a["image_id"] for a in dataset["annotations"]})
    results = []
    for annotation in dataset["annotations"]:
        x, y, w, h = annotation["bbox"]
        if annotation["image_id"] != ids[2]:
            x += w * (annotation["image_id"] == ids[1])
            results.append(
                {"image_id": annotation["image_id"], "category_id": annotation["category_id"], "score": 0.9}
                | {"bbox": [x, y, w, h], "segmentation": run_lengths(annotation["segmentation"], 64, 64)}
            )
    names = {i["id"]: i["file_name"] for i in dataset["images"]}
    return dataset, results, folder / "val", {names[ids[1]], names[ids[2]]}


def test_report_is_self_contained_and_shows_the_worst(evaluated, tmp_path):
    dataset, results, images, worst = evaluated
    page = write_report(dataset, results, images, tmp_path, title="run <1>", count=2).read_text()
    assert not re.search(r'(src|href|srcset)="(?!data:)', page) and "@import" not in page and "url(" not in page
    assert "run &lt;1&gt;" in page and "<b>&bold" not in page
    assert set(re.findall(r"<strong>(.*?)</strong>", page)) == worst
    assert "masks" in page and "prefers-color-scheme: dark" in page
    encoded = re.search(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page).group(1)
    assert cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR).shape[2] == 3
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files[:4] == ["class_ap.png", "precision_recall_bbox.png", "precision_recall_segm.png", "report.html"]
    assert len(files) == 6 and all(f.startswith("worst_00") for f in files[4:])


def test_boxes_alone(evaluated, tmp_path):
    dataset, results, images, _ = evaluated
    results = [{key: value for key, value in r.items() if key != "segmentation"} for r in results]
    page = write_report(dataset, results, images, tmp_path, title="boxes", count=1).read_text()
    assert "boxes</th>" in page and "masks</th>" not in page
    assert not (tmp_path / "precision_recall_segm.png").exists()


def test_missing_image(evaluated, tmp_path):
    dataset, results, _, _ = evaluated
    with pytest.raises(UserError, match="is missing or cannot be read"):
        write_report(dataset, results, tmp_path, tmp_path / "report", title="none")
