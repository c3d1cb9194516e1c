"""What is recognised, and what is said of a path that is not."""

import json

import pytest
from layouts import coco, write_photos, write_voc, write_yolo

from lazyrun.data.formats import FORMATS, read_dataset
from lazyrun.data.splits import write_coco
from pretrain.common.errors import UserError


def dump(content):
    return lambda folder: (folder / "x.json").write_text(json.dumps(content))


def both(folder):
    write_voc(folder, folder)
    write_yolo(folder)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: None, r"no annotations beside its 4 images\. The formats read are: COCO JSON, VIA, Label Studio"),
        (both, r"holds Pascal VOC \(.*\.xml.*\) and YOLO \(.*\.txt, …\); name the file or folder"),
        (dump([{"image_id": 1, "score": 0.5, "category_id": 1, "bbox": []}]), r"x\.json: detections \(a COCO results"),
        (dump({"project": {}, "config": {}, "view": {}}), r"x\.json: a project of VIA 3"),
        (dump([{"image": "a.jpg", "annotations": []}]), r"x\.json: CreateML's format"),
        (dump({"images": [], "categories": []}), r"x\.json: COCO JSON without annotations"),
        (dump({"a": 1}), r"x\.json: JSON that is not known"),
        (dump([]), r"x\.json: a list of something that is not known"),
        (dump(5), r"x\.json: neither a table nor a list"),
        (lambda f: (f / "x.xml").write_text("<html/>"), r"x\.xml: XML with <html> around it"),
        (lambda f: (f / "x.csv").write_text("a,b"), r"x\.csv: a table; export the annotations"),
        (lambda f: (f / "x.zip").write_text("PK"), r"x\.zip: an archive; unpack it"),
    ],
)
def test_folders_that_are_not_read(tmp_path, write, message):
    write(write_photos(tmp_path))
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "there is no such file or folder"),
        ("a 1.jpg", r"a file that ends in \.jpg holds no annotations"),
        ("x.csv", "a table; export"),
        ("x.zip", "an archive; unpack it and name the folder"),
        ("x.txt", r"for YOLO name its data\.yaml or the folder"),
        ("x.json", r"x\.json is not a JSON file"),
    ],
)
def test_files_that_are_not_read(tmp_path, name, message):
    write_photos(tmp_path)
    for suffix in ("csv", "zip", "txt", "json"):
        (tmp_path / f"x.{suffix}").write_text("{a,b")
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path / name)


def test_a_folder_in_a_folder_and_hidden_files(tmp_path):
    folder = write_photos(tmp_path / "export" / "cards (1)")
    (folder / "c.json").write_text(json.dumps(coco()))
    (folder / "._c.json").write_bytes(b"\0\5")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "c.xml").write_text("no XML")
    assert read_dataset(tmp_path).root == folder


def test_converted_files_of_a_run_do_not_count(tmp_path):
    write_voc(write_photos(tmp_path), tmp_path)
    found = read_dataset(tmp_path)
    write_coco(found, tmp_path / "output" / "data" / "train.json")
    assert read_dataset(tmp_path).annotations == found.annotations
    again = read_dataset(tmp_path / "output")
    assert again.root == tmp_path and again.json_file == tmp_path / "output/data/train.json"


def test_names_are_different():
    assert len({f.name for f in FORMATS}) == len(FORMATS) == 8
