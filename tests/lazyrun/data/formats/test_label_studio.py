"""Label Studio's JSON export: percent to pixels, where images are, and what is refused, with task and result."""

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from layouts import (
    BOXES,
    PHOTOS,
    SINGLE,
    TRIANGLE,
    coco,
    label_studio_result,
    label_studio_task,
    objects,
    percent,
    points,
    write_photos,
)

from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError


def rectangle(label, box, **more):
    return label_studio_result(
        "rectanglelabels", label, dict(zip(("x", "y", "width", "height"), percent(box), strict=True)) | more
    )


def polygon(label, flat):
    return label_studio_result("polygonlabels", label, {"points": points(percent(flat)), "closed": True})


def as_tasks(address="/data/upload/3/0a1b2c3d-{}"):
    tasks = []
    for number, photo in enumerate(PHOTOS, 1):
        results = [rectangle(label, box) for name, label, box in BOXES if name == photo]
        results += [polygon(label, parts[0]) for name, label, parts in SINGLE if name == photo]
        tasks.append(label_studio_task(number, address.format(quote(photo)), results))
    return tasks


def read(tmp_path, content):
    write_photos(tmp_path / "photos")
    (tmp_path / "project-1.json").write_text(json.dumps(content))
    return read_dataset(tmp_path / "project-1.json")


@pytest.mark.parametrize(
    "address", ["/data/upload/3/0a1b2c3d-{}", "/data/local-files/?d=photos/{}", "https://x.org/p/{}?v=1", "photos/{}"]
)
def test_round_trip(tmp_path, address):
    found = read(tmp_path, as_tasks(address))
    assert objects(found) == objects(coco(BOXES, SINGLE)) and found.names == ["coin", "kite"]
    assert found.format == "Label Studio" and len(found.images) == 4
    assert {Path(i["file_name"]).name for i in found.images} == set(PHOTOS)


def test_which_annotation_is_read(tmp_path):
    tasks = as_tasks()
    tasks[1]["annotations"] = []
    first = tasks[0]["annotations"][0]
    tasks[0]["annotations"] = [{**first, "was_cancelled": True, "result": []}, {**first, "result": []}, first]
    found = read(tmp_path, tasks)
    assert len(found.images) == 3 and all(o[0] != "a 1.jpg" for o in objects(found))
    assert found.notes == [
        "1 tasks without annotation are left out",
        "1 tasks have several annotations, of which one is read",
    ]
    first["ground_truth"] = True
    assert any(o[0] == "a 1.jpg" for o in objects(read(tmp_path, tasks)))


def test_ellipse_rotation_and_what_has_no_area(tmp_path):
    tasks = as_tasks()
    cx, cy = percent([20, 20])
    ellipse = {"x": cx, "y": cy, "radiusX": 100 * 10 / 64, "radiusY": 100 * 4 / 48}
    tasks[1]["annotations"][0]["result"] = [
        label_studio_result("ellipselabels", "coin", ellipse | {"rotation": 90}),
        rectangle("coin", [30, 10, 10, 4], rotation=90),
        label_studio_result("keypointlabels", "coin", {"x": 1, "y": 1}),
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    found = read(tmp_path, tasks[1:2])
    turned, round_one = sorted(found.annotations, key=lambda a: "segmentation" in a)
    assert round_one["bbox"] == pytest.approx([16, 10, 8, 20])
    assert round_one["area"] == pytest.approx(np.pi * 40, rel=0.01)
    assert turned["bbox"] == pytest.approx([26, 10, 4, 10])  # about its upper left corner
    assert "1 points, lines and the like" in found.notes[0]


BRUSH = label_studio_result("brushlabels", "coin", {"format": "rle", "rle": [0, 1]})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (BRUSH, r"project-1\.json: task 2, result x1: brushlabels are not read, .*for brushes export as COCO"),
        (rectangle("coin", [1, 1, 99, 9]), r"task 2, result x1: the object reaches outside"),
        (rectangle("coin", [1, 1, 9, 9]) | {"image_rotation": 90}, r"the image was annotated rotated"),
        (rectangle("coin", [1, 1, 9, 9]) | {"value": None}, r"result x1: x is None, not a number"),
        (rectangle("coin", [1, 1, 9, 9]) | {"value": [1]}, r"result x1: value is \[1\], not a table of keys"),
        (rectangle("", [1, 1, 9, 9]), r"result x1: it has no class name"),
        (polygon("coin", TRIANGLE[:4]), r"result x1: a polygon of fewer than three points"),
    ],
)
def test_refusals(tmp_path, result, message):
    tasks = as_tasks()
    tasks[1]["annotations"][0]["result"] = [result]
    with pytest.raises(UserError, match=message):
        read(tmp_path, tasks)


def test_other_refusals(tmp_path):
    with pytest.raises(UserError, match=r"its image .*gone\.jpg is missing"):
        read(tmp_path, [*as_tasks(), label_studio_task(9, "/data/upload/1/0a1b2c3d-gone.jpg", [])])
    with pytest.raises(UserError, match=r"task 9: its data names no image file"):
        read(tmp_path, [*as_tasks(), label_studio_task(9, "a text", [])])
    with pytest.raises(UserError, match=r"task 1: its annotations are numbers"):
        read(tmp_path, [{"id": 1, "data": {"image": "b.png"}, "annotations": [5]}])
    with pytest.raises(UserError, match="Label Studio's JSON-MIN; export as JSON"):
        read(tmp_path, [{"image": "b.png", "annotation_id": 1, "label": []}])
