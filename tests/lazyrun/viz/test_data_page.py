"""The page of a look at data."""

import json

import numpy as np
import pytest
import tiny_coco
from pages import check_page
from PIL import Image

from lazyrun.config.data_look import look_at_data
from lazyrun.viz.data_page import write_data_page
from lazyrun.viz.windows import draw_window, window_around

EVIL = "<script>alert(1)</script> $\\frac{1$"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images, one of them damaged, one with a name that is HTML, a class that is HTML and TeX, and odd objects."""
    folder = tmp_path_factory.mktemp("photos")
    content = tiny_coco.content()
    content["categories"][0]["name"] = EVIL
    content["images"][3]["file_name"] = "<b>&amp;.png"
    content["annotations"][0]["bbox"] = [0, 0, 2, 40]
    content["annotations"][0]["segmentation"] = tiny_coco.run_lengths(content["annotations"][0])
    for number, image in enumerate(content["images"]):
        Image.new("RGB", (64, 48), (20 * number, 90, 30)).save(folder / image["file_name"])
    (folder / "5.png").write_bytes(b"damaged")
    tiny_coco.write(folder, content)
    return folder


def test_page(folder, tmp_path):
    look = look_at_data(folder, overrides=["data.max_corrupt=0.2"])
    write_data_page(look, tmp_path / "page.html", title="<i>mine</i>", count=4)
    page = (tmp_path / "page.html").read_text()
    tags, text = check_page(page)
    assert "script" not in tags and "i" not in tags and "b" not in tags
    assert EVIL in text and "<b>&amp;.png" in text and "<i>mine</i>" in text
    assert "Training would begin." in text and "1 image files that cannot be read" in text
    assert "1.png: annotation 1: 2x40" in text and "1 drawn-out boxes" in text
    samples = page.partition("<h2>Samples</h2>")[2].partition("<h2>")[0]
    assert samples.count("<img") == 4 and "5.png" not in samples


def test_a_page_of_nothing_but_faults(folder, tmp_path):
    content = json.loads((folder / "data.json").read_text())
    content["annotations"][1]["image_id"] = 99
    tiny_coco.write(tmp_path, content)
    look = look_at_data(tmp_path / "data.json")
    write_data_page(look, tmp_path / "page.html", title="broken")
    tags, text = check_page((tmp_path / "page.html").read_text())
    assert "Training would be refused:" in text and "1 annotations of unknown images" in text and "img" not in tags


def test_without_any_object(folder, tmp_path):
    content = json.loads((folder / "data.json").read_text()) | {"annotations": []}
    (tmp_path / "data.json").write_text(json.dumps(content))
    for image in content["images"]:
        Image.new("RGB", (64, 48)).save(tmp_path / image["file_name"])
    write_data_page(look_at_data(tmp_path), tmp_path / "page.html", title="empty", count=2)
    tags, text = check_page((tmp_path / "page.html").read_text())
    assert "there is no annotation to train on" in text and tags.count("figure") == 2


def test_windows():
    assert window_around([], 100, 50) == (0, 0, 100, 50)
    assert window_around([[500, 300, 20, 20]], 1000, 600) == (460, 260, 560, 360)
    assert window_around([[0, 0, 2, 2]], 1000, 600) == (0, 0, 64, 64)
    assert window_around([[2000, 10, 5, 5]], 100, 50) == (36, 0, 100, 50)  # an object far outside
    assert window_around([[10, 10, 5, 5], [800, 500, 5, 5]], 1000, 600) == (0, 0, 1000, 600)


def test_strips_are_not_enlarged_beyond_measure():
    strip = np.zeros((3, 4000, 3), np.uint8)
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4000, 3]}
    assert draw_window(strip, [annotation], {1: "line"}, longest=480).shape == (3, 1440, 3)


@pytest.mark.parametrize("kind", ["polygons", "lists", "text"])
def test_what_is_seen_through_a_window(kind):
    """The mask of a part of an image, reduced to half, is the part of the mask."""
    square = [20, 10, 60, 10, 60, 50, 20, 50]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 40, 40], "segmentation": [square]}
    if kind != "polygons":
        mask = np.zeros((800, 1000), np.uint8)
        mask[10:50, 20:60] = 1
        flat = mask.flatten(order="F")
        lengths = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
        annotation["segmentation"] = {"size": [800, 1000], "counts": lengths}
        if kind == "text":
            from pycocotools import mask as mask_util

            annotation["segmentation"] = mask_util.encode(np.asfortranarray(mask))
    image = np.full((800, 1000, 3), 128, np.uint8)
    picture = draw_window(image, [annotation], {1: ""}, (0, 0, 800, 800), longest=400)
    assert picture.shape == (400, 400, 3)
    changed = np.abs(picture.astype(int) - 128).max(2) > 20
    ys, xs = np.nonzero(changed)
    assert abs(xs.min() - 10) <= 2 and abs(xs.max() - 30) <= 2 and abs(ys.min() - 5) <= 2 and abs(ys.max() - 25) <= 2
    assert changed[8:22, 13:27].all()
