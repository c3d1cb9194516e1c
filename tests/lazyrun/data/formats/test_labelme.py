"""LabelMe: every kind of shape, groups, and what is refused, with file and shape."""

import json

import numpy as np
import pytest
from layouts import (
    BOXES,
    POLYGONS,
    TRIANGLE,
    coco,
    labelme_shape,
    masks,
    objects,
    pixels,
    png_base64,
    points,
    write_labelme,
    write_photos,
)

from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError


def as_shapes():
    """The original, its parts joined by group_id."""
    shapes = {}
    for name, label, (x, y, w, h) in BOXES:
        corners = [[x + w, y], [x, y + h]]  # any two opposite ones
        shapes.setdefault(name, []).append(labelme_shape(label, "rectangle", corners))
    for number, (name, label, parts) in enumerate(POLYGONS):
        group = number if len(parts) > 1 else None
        shapes.setdefault(name, []).extend(labelme_shape(label, "polygon", points(p), group) for p in parts)
    return shapes


@pytest.mark.parametrize("apart", [False, True])
def test_round_trip(tmp_path, apart):
    write_photos(tmp_path / "images" if apart else tmp_path)
    write_labelme(tmp_path, as_shapes())
    found = read_dataset(tmp_path)
    assert objects(found) == objects(coco(BOXES, POLYGONS)) and found.names == ["coin", "kite"]
    assert found.format == "LabelMe" and len(found.images) == 4
    one = read_dataset(tmp_path / "b.json")
    assert objects(one) == [o for o in objects(found) if o[0] == "b.png"]


def test_circle(tmp_path):
    write_photos(tmp_path)
    write_labelme(tmp_path, {"b.png": [labelme_shape("coin", "circle", [[20, 20], [23, 24]])]})
    found = read_dataset(tmp_path).annotations[0]
    assert found["bbox"] == [15, 15, 10, 10] and found["area"] == pytest.approx(np.pi * 25, rel=0.01)


def test_mask(tmp_path):
    write_photos(tmp_path)
    mask = pixels([TRIANGLE])
    ys, xs = np.nonzero(mask)
    window = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    corners = [[float(xs.min()), float(ys.min())], [float(xs.max()), float(ys.max())]]
    write_labelme(tmp_path, {"a 1.jpg": [labelme_shape("kite", "mask", corners, mask=png_base64(window))]})
    assert masks(read_dataset(tmp_path)) == masks(coco([], POLYGONS[:1]))


def test_points_and_lines_are_counted(tmp_path):
    write_photos(tmp_path)
    shapes = as_shapes()
    shapes["b.png"] += [labelme_shape("coin", "point", [[1, 1]]), labelme_shape("coin", "line", [[1, 1], [2, 2]])]
    write_labelme(tmp_path, shapes)
    found = read_dataset(tmp_path)
    assert objects(found) == objects(coco(BOXES, POLYGONS))
    assert "2 points, lines and the like, which have no area, are left out" in found.notes[-1]
    assert "b.json: shape 3" in found.notes[-1]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (labelme_shape("coin", "cube", [[1, 1], [2, 2]]), r"b\.json: shape 1: shapes of type 'cube' are not read"),
        (labelme_shape("coin", "polygon", [[1, 1], [2, 2]]), r"shape 1: a polygon of fewer than three points"),
        (labelme_shape("coin", "circle", [[1, 1]]), r"shape 1: a circle has two points, not 1"),
        (labelme_shape("coin", "polygon", [[1, 1], [2], [3, 3]]), r"shape 1: its points are not pairs"),
        (labelme_shape("coin", "polygon", [[1, 1], [2, "x"], [3, 3]]), r"shape 1: a coordinate is 'x'"),
        (labelme_shape("", "rectangle", [[1, 1], [2, 2]]), r"shape 1: it has no class name"),
        (labelme_shape("coin", "mask", [[1, 1], [2, 2]], mask="AAAA"), r"shape 1: its mask is not a PNG"),
        ("text", r"shape 1: it is no object of JSON"),
    ],
)
def test_refusals(tmp_path, shape, message):
    write_photos(tmp_path)
    write_labelme(tmp_path, {"b.png": [shape]})
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path)


def test_other_refusals(tmp_path):
    write_photos(tmp_path)
    kinds = [
        labelme_shape("coin", "polygon", points(TRIANGLE), 1),
        labelme_shape("coin", "rectangle", [[1, 1], [2, 2]], 1),
    ]
    write_labelme(tmp_path, {"b.png": kinds})
    with pytest.raises(UserError, match=r"b\.json: shape 1: shapes of one group_id are of several kinds"):
        read_dataset(tmp_path)
    (tmp_path / "b.json").write_text(json.dumps({"shapes": []}))
    with pytest.raises(UserError, match=r"b\.json is not a file of LabelMe"):
        read_dataset(tmp_path)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UserError, match=r"b\.json is not a JSON file"):
        read_dataset(tmp_path)
    write_labelme(tmp_path, {})
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match=r"b\.json: its image b\.png is missing"):
        read_dataset(tmp_path)
