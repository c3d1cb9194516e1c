"""VIA 1 and 2: every shape, which attribute is the class, and what is refused, with image and region."""

import json

import numpy as np
import pytest
from layouts import BOXES, SINGLE, TRIANGLE, coco, objects, via_entries, write_photos

from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError


def rect(box):
    return {"name": "rect", **dict(zip(("x", "y", "width", "height"), box, strict=True))}


def polygon(flat):
    return {"name": "polygon", "all_points_x": flat[::2], "all_points_y": flat[1::2]}


def as_regions():
    regions = {}
    for name, label, box in BOXES:
        regions.setdefault(name, []).append((label, rect(box)))
    for name, label, parts in SINGLE:
        regions.setdefault(name, []).append((label, polygon(parts[0])))
    return regions


def read(tmp_path, content):
    write_photos(tmp_path)
    (tmp_path / "via.json").write_text(json.dumps(content))
    return read_dataset(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_round_trip(tmp_path, version):
    found = read(tmp_path, via_entries(as_regions(), version))
    assert objects(found) == objects(coco(BOXES, SINGLE)) and found.names == ["coin", "kite"]
    assert found.format == "VIA" and len(found.images) == 4  # those without regions are background


def test_a_project_orders_its_classes(tmp_path):
    options = {"kite": "a kite", "bird": "", "coin": ""}
    content = {
        "_via_settings": {"core": {}},
        "_via_img_metadata": via_entries(as_regions(), 2),
        "_via_attributes": {"region": {"kind": {"type": "dropdown", "options": options}}, "file": {}},
    }
    found = read(tmp_path, content)
    assert found.names == ["kite", "bird", "coin"] and objects(found) == objects(coco(BOXES, SINGLE))


def test_circle_and_ellipse(tmp_path):
    shapes = [
        ("coin", {"name": "circle", "cx": 20, "cy": 20, "r": 5}),
        ("coin", {"name": "ellipse", "cx": 30, "cy": 20, "rx": 10, "ry": 4, "theta": np.pi / 2}),
        ("coin", {"name": "circle", "cx": 2, "cy": 20, "r": 5}),
    ]
    circle, ellipse, cut = read(tmp_path, via_entries({"b.png": shapes}, 2)).annotations
    assert circle["bbox"] == [15, 15, 10, 10] and circle["area"] == pytest.approx(np.pi * 25, rel=0.01)
    assert ellipse["bbox"] == pytest.approx([26, 10, 8, 20]) and ellipse["area"] == pytest.approx(np.pi * 40, rel=0.01)
    assert cut["bbox"] == [0, 15, 7, 10]


def test_attributes(tmp_path):
    content = via_entries({"b.png": [("x", rect([1, 2, 3, 4])), ("y", polygon(TRIANGLE))]}, 2)
    attributes = [r["region_attributes"] for r in content["b.png1234"]["regions"]]
    attributes[0].update(Class={"kite": True, "coin": False})
    attributes[1].update(Class="coin")
    assert [o[1:3] for o in objects(read(tmp_path, content))] == [("coin", [10, 10, 20.5, 30]), ("kite", [1, 2, 3, 4])]
    for a in attributes:
        a["colour"] = a.pop("Class")
    with pytest.raises(UserError, match=r"which of the region attributes kind, colour is the class"):
        read(tmp_path, content)
    for a in attributes:
        a.clear()
    assert read(tmp_path, content).names == ["object"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"name": "cube"}, r"via\.json: b\.png, region 1: regions of type 'cube' are not read"),
        ({"name": "rect", "x": 1}, r"region 1: y is None, not a number"),
        ({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1]}, r"region 1: all_points_x and"),
        ({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}, r"region 1: a polygon of fewer"),
        (rect([1, 1, 99, 9]), r"region 1: the object reaches outside"),
    ],
)
def test_refusals(tmp_path, shape, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, via_entries({"b.png": [("coin", shape)]}, 2))


def test_a_region_without_class_and_a_missing_image(tmp_path):
    regions = {"b.png": [("coin", rect([1, 2, 3, 4])), ("", rect([1, 2, 3, 4]))]}
    with pytest.raises(UserError, match=r"b\.png, region 2: it has no class name"):
        read(tmp_path, via_entries(regions, 1))
    content = via_entries({}, 2)
    content["x"] = content["b.png1234"] | {"filename": "gone.jpg"}
    with pytest.raises(UserError, match=r"via\.json: its image gone\.jpg is missing"):
        read(tmp_path, content)
