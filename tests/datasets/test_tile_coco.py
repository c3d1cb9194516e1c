"""Objects move with their images."""

import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image
from shapes import REPO


def tile(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tile_coco.py", *map(str, arguments)])
    runpy.run_path(str(REPO / "datasets/tile_coco.py"), run_name="__main__")


def test_objects_lie_where_their_images_do(tmp_path, monkeypatch):
    for number in range(5):
        image = np.zeros((10, 12 - number, 3), np.uint8)
        image[2:5, 3:7] = 50 + number
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    square = [3, 2, 7, 2, 7, 5, 3, 5]
    truth = {
        "images": [{"id": 9 - i, "file_name": f"{i}.png", "height": 10, "width": 12 - i} for i in range(5)],
        "annotations": [
            {"id": i, "image_id": 9 - i, "category_id": 1, "bbox": [3, 2, 4, 3], "segmentation": [square]}
            for i in range(5)
        ],
        "categories": [{"id": 1, "name": "block"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    tile(monkeypatch, tmp_path / "truth.json", tmp_path, tmp_path / "out")
    found = json.loads((tmp_path / "out/annotations.json").read_text())
    assert found["images"] == [{"id": 1, "file_name": "000001.png", "height": 20, "width": 24}]
    image = np.asarray(Image.open(tmp_path / "out/images/000001.png"))
    assert image.shape == (20, 24, 3)
    boxes = np.array([a["bbox"] for a in found["annotations"]]).astype(int)
    assert boxes.tolist() == [[3, 2, 4, 3], [15, 2, 4, 3], [3, 12, 4, 3], [15, 12, 4, 3]]
    for value, (x, y, w, h) in enumerate(boxes, start=50):
        assert (image[y : y + h, x : x + w] == value).all() and (image == value).sum() == 3 * 3 * 4
    moved = np.array(square).reshape(-1, 2) + (12, 10)
    assert found["annotations"][3]["segmentation"] == [moved.flatten().tolist()]
    with pytest.raises(SystemExit, match=r"has 5 images, --rows 3 needs more"):
        tile(monkeypatch, tmp_path / "truth.json", tmp_path, tmp_path / "out", "--rows", 3)


SOUND = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "block"}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,x,y\na.jpg,1,2\n", "not a COCO annotation file"),
        (json.dumps(SOUND), "has 0 images, --rows 1 needs more"),
        (json.dumps({"annotations": [], "categories": []}), "it has no 'images'"),
        (json.dumps([1]), "not a COCO annotation file"),
        (json.dumps(SOUND | {"images": [{"id": 1, "file_name": "gone.png", "height": 4, "width": 4}]}), "gone.png"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_a_sentence(text, message, tmp_path, monkeypatch):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        tile(monkeypatch, tmp_path / "truth.json", tmp_path, tmp_path / "out", "--rows", 1)


@pytest.mark.parametrize(("annotations", "images"), [("annotations.json", "elsewhere"), ("truth.json", "images")])
def test_what_is_read_is_not_replaced(annotations, images, tmp_path, monkeypatch):
    (tmp_path / annotations).write_text(json.dumps(SOUND))
    with pytest.raises(SystemExit, match="choose another output folder"):
        tile(monkeypatch, tmp_path / annotations, tmp_path / images, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [annotations]
