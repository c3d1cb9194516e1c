"""COCO JSON: where its images are, and Roboflow's oddities."""

import codecs
import json

import pytest
from layouts import PHOTOS, POLYGONS, coco, objects, write_photos

from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError

CONTENT = coco(polygons=POLYGONS)


@pytest.mark.parametrize(
    ("json_at", "images_at", "named"),
    [
        ("annotations.json", ".", "."),
        ("_annotations.coco.json", ".", "."),
        ("a.json", "images", "a.json"),
        ("annotations/instances_val2017.json", "val2017", "."),
        ("annotations/val.json", "images/val", "annotations/val.json"),
        ("result.json", "JPEGImages", "."),
        ("labels/result.json", "photos", "labels"),
    ],
)
def test_images_are_found(tmp_path, json_at, images_at, named):
    write_photos(tmp_path / images_at)
    (tmp_path / json_at).parent.mkdir(exist_ok=True)
    (tmp_path / json_at).write_text(json.dumps(CONTENT))
    found = read_dataset(tmp_path / named, "val")
    assert objects(found) == objects(CONTENT)
    assert found.root == tmp_path / images_at and found.json_file == tmp_path / json_at
    assert found.format == "COCO JSON"


def test_file_names_with_other_folders(tmp_path):
    write_photos(tmp_path / "images")
    content = json.loads(json.dumps(CONTENT))
    for image in content["images"]:
        image["file_name"] = f"..\\upload\\{image['file_name']}"
    (tmp_path / "result.json").write_bytes(codecs.BOM_UTF8 + json.dumps(content).encode())
    found = read_dataset(tmp_path)
    assert objects(found) == objects(CONTENT) and found.json_file is None
    assert all((found.root / i["file_name"]).is_file() for i in found.images)


def test_parts_of_a_roboflow_export(tmp_path, caplog):
    root = {"id": 0, "name": "cards", "supercategory": "none"}
    content = CONTENT | {"categories": [root, *({**c, "supercategory": "cards"} for c in CONTENT["categories"])]}
    for part in ("train", "valid"):
        write_photos(tmp_path / part)
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(content))
    with caplog.at_level("INFO"):
        found = read_dataset(tmp_path, "val")
    assert found.root == tmp_path / "valid" and found.names == ["coin", "kite"]
    assert (
        "1 root categories without objects (0 cards); left out" in caplog.text and caplog.text.count("COCO JSON") == 1
    )
    with pytest.raises(UserError, match="several files of COCO JSON"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].update(file_name="gone.jpg"), r"c\.json: its image gone\.jpg is missing"),
        (lambda c: c["images"].clear(), r"c\.json lists no images"),
        (lambda c: c["images"][0].update(file_name=5), r"c\.json: its image 5 is missing"),
        (lambda c: c["categories"].clear(), r"c\.json lists no categories"),
        (lambda c: c["categories"][0].update(id="x"), r"c\.json category .* needs a whole number as id"),
        (lambda c: c.pop("annotations"), r"c\.json: COCO JSON without annotations"),
    ],
)
def test_refusals(tmp_path, change, message):
    write_photos(tmp_path)
    content = json.loads(json.dumps(CONTENT))
    change(content)
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path)


def test_images_in_two_folders(tmp_path):
    write_photos(tmp_path / "large")
    write_photos(tmp_path / "small")
    (tmp_path / "c.json").write_text(json.dumps(CONTENT))
    with pytest.raises(UserError, match=r"may be those of .*large or of .*small"):
        read_dataset(tmp_path)
    assert len(list((tmp_path / "small").iterdir())) == len(PHOTOS)
