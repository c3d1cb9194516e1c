"""CVAT for images 1.1: every shape, groups, and what is refused, with image and shape."""

import re

import numpy as np
import pytest
from layouts import (
    BOXES,
    NAMES,
    POLYGONS,
    RIGHT,
    TRIANGLE,
    coco,
    cvat_mask,
    cvat_xml,
    masks,
    objects,
    pixels,
    points,
    write_photos,
)

from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError


def box(label, x, y, w, h, more=""):
    return f'<box label="{label}" occluded="0" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}" z_order="0"{more}></box>'


def polygon(label, flat, group=0):
    text = ";".join(f"{x},{y}" for x, y in points(flat))
    return f'<polygon label="{label}" occluded="0" points="{text}" z_order="0" group_id="{group}"></polygon>'


def as_shapes():
    shapes = dict.fromkeys(["a 1.jpg", "b.png", "été.JPG"], "")
    for name, label, values in BOXES:
        shapes[name] += box(label, *values)
    for number, (name, label, parts) in enumerate(POLYGONS):
        shapes[name] += "".join(polygon(label, p, number if len(parts) > 1 else 0) for p in parts)
    return shapes


def read(tmp_path, xml):
    write_photos(tmp_path / "images")
    (tmp_path / "annotations.xml").write_text(xml, encoding="utf-8")
    return read_dataset(tmp_path)


def test_round_trip(tmp_path):
    found = read(tmp_path, cvat_xml(as_shapes()))
    assert objects(found) == objects(coco(BOXES, POLYGONS)) and len(found.images) == 4
    assert found.names == NAMES[::-1]  # as the task defines them
    assert objects(read_dataset(tmp_path / "annotations.xml")) == objects(found)


@pytest.mark.parametrize("apart", [True, False])
def test_subsets_of_a_project(tmp_path, apart):
    for part in ("Train", "Validation"):
        write_photos(tmp_path / "images" / (part if apart else ""))
    xml = cvat_xml(as_shapes())
    head, _, rest = xml.partition("<image ")
    images = f"<image {rest.removesuffix('</annotations>')}"
    subsets = [images.replace("<image ", f'<image subset="{s}" ') for s in ("Train", "Validation")]
    if apart:
        (tmp_path / "annotations.xml").write_text("".join([head, *subsets, "</annotations>"]), encoding="utf-8")
        assert len(read_dataset(tmp_path).images) == 8
    else:
        text = head + subsets[0].replace('name="b.png"', 'name="gone.png"') + subsets[1] + "</annotations>"
        (tmp_path / "annotations.xml").write_text(text, encoding="utf-8")
    for path in (tmp_path, tmp_path / "annotations.xml"):
        found = read_dataset(path, "val")
        assert objects(found) == objects(coco(BOXES, POLYGONS)) and len(found.images) == 4
        assert found.notes == ["its subset 'validation', 4 of 8 images"]
        assert (
            not apart
            or found.root == tmp_path / "images" / "Validation"
            or "Validation" in found.images[0]["file_name"]
        )


def test_a_file_for_each_task(tmp_path):
    write_photos(tmp_path / "images")
    xml = cvat_xml(as_shapes())
    whole = re.findall(r"<image .*?</image>", xml, re.DOTALL)
    for number, some in enumerate((whole[:1], whole[1:]), start=1):
        (tmp_path / f"task_{number}").mkdir()
        text = xml[: xml.index("<image ")] + "".join(some) + "</annotations>"
        (tmp_path / f"task_{number}" / "annotations.xml").write_text(text, encoding="utf-8")
    found = read_dataset(tmp_path)
    assert objects(found) == objects(coco(BOXES, POLYGONS)) and found.names == NAMES[::-1]


def test_masks(tmp_path):
    shapes = {name: cvat_mask(label, pixels(parts)) for name, label, parts in POLYGONS}
    assert masks(read(tmp_path, cvat_xml(shapes))) == masks(coco([], POLYGONS))


def test_ellipse_rotated_box_and_what_has_no_area(tmp_path):
    shapes = (
        '<ellipse label="coin" cx="20" cy="20" rx="10" ry="4" rotation="90"></ellipse>'
        + box("coin", 20, 20, 10, 4, ' rotation="90"')
        + '<points label="coin" points="1,1"></points><tag label="coin"></tag>'
    )
    found = read(tmp_path, cvat_xml({"b.png": shapes}))
    turned, ellipse = sorted(found.annotations, key=lambda a: "segmentation" in a)
    assert ellipse["bbox"] == pytest.approx([16, 10, 8, 20]) and ellipse["area"] == pytest.approx(np.pi * 40, rel=0.01)
    assert turned["bbox"] == pytest.approx([23, 17, 4, 10])
    assert "1 points, lines and the like" in found.notes[0]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (box("coin", 1, 1, 99, 9), r"annotations\.xml: image b\.png, box \(shape 1\): the object reaches outside"),
        (box("bird", 1, 1, 9, 9), r"\(shape 1\): 'bird' is not among the classes kite, coin"),
        ('<cuboid label="coin"/>', r"cuboid \(shape 1\): shapes of this type are not read"),
        ('<box label="coin" xtl="1"/>', r"ytl is None, not a number"),
        ('<polygon label="coin" points="1,1;2"/>', r"its points are not pairs"),
        (polygon("coin", RIGHT[:4]), r"a polygon of fewer than three points"),
        ('<mask label="coin" rle="1,2" left="0" top="0" width="2" height="2"/>', r"its rle does not cover 2x2"),
    ],
)
def test_refusals(tmp_path, shape, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, cvat_xml({"b.png": shape}))


def test_videos_and_missing_images(tmp_path):
    with pytest.raises(UserError, match="CVAT's format for videos"):
        read(tmp_path, "<annotations><track/></annotations>")
    xml = cvat_xml({"b.png": polygon("coin", TRIANGLE)}).replace('name="b.png"', 'name="sub/gone.png"')
    with pytest.raises(UserError, match=r"annotations\.xml: its image sub/gone\.png is missing"):
        read(tmp_path, xml)
