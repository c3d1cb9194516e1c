"""YOLO in its layouts; what is refused, with file and line."""

import pytest
from layouts import BOXES, PHOTOS, SINGLE, coco, objects, write_photos, write_yolo
from PIL import Image

from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError

ORIGINAL = objects(coco(BOXES, SINGLE))
YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: coin\n  1: kite\n"


def write(labels):
    write_yolo(labels, BOXES, SINGLE)


def test_labels_beside_images(tmp_path, caplog):
    write(write_photos(tmp_path))
    (tmp_path / "classes.txt").write_text("coin\r\nkite\r\n", encoding="utf-8-sig")
    with caplog.at_level("INFO"):
        found = read_dataset(tmp_path)
    assert objects(found) == ORIGINAL and found.names == ["coin", "kite"]
    assert [i["file_name"] for i in found.images] == PHOTOS
    assert "YOLO, 4 images" in caplog.text and "2 images without objects are background" in caplog.text


def test_the_layout_of_ultralytics(tmp_path):
    for part in ("train", "val"):
        write_photos(tmp_path / "images" / part)
        write(tmp_path / "labels" / part)
    (tmp_path / "data.yaml").write_text(YAML)
    for path, split in [("data.yaml", "train"), (".", "train"), ("images/val", None), ("images/val", "val")]:
        found = read_dataset(tmp_path / path, split)
        assert objects(found) == ORIGINAL, path
        assert {(found.root / i["file_name"]).parent.name for i in found.images} == {split or "val"}
    assert len(read_dataset(tmp_path).images) == len(read_dataset(tmp_path / "data.yaml").images) == 8


def test_the_layout_of_roboflow(tmp_path):
    for part in ("train", "valid"):
        write_photos(tmp_path / part / "images")
        write(tmp_path / part / "labels")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['coin', 'kite']\n"
    )
    assert objects(read_dataset(tmp_path, "val")) == ORIGINAL
    assert objects(read_dataset(tmp_path / "valid")) == objects(read_dataset(tmp_path / "valid", "val")) == ORIGINAL


@pytest.mark.parametrize(
    ("base", "entry"),
    [
        ("", "images/{}"),
        (".", "./images/{}"),
        ("", "../images/{}"),
        ("../cards", "images/{}"),
        ("/content/datasets/cards", "images/{}"),
        ("", "/content/datasets/cards/images/{}"),
        ("", "C:\\data\\cards\\images\\{}"),
        ("datasets/cards", "images/{}"),
        ("", "cards/images/{}"),
        ("images", "{}"),
    ],
)
def test_where_paths_may_be_relative_to(tmp_path, monkeypatch, base, entry):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "val"):
        write_photos(tmp_path / "cards" / "images" / part)
        write(tmp_path / "cards" / "labels" / part)
    file = tmp_path / "cards" / "data.yaml"
    paths = "".join(f"{part}: {entry.format(part)}\n" for part in ("train", "val"))
    file.write_text(f"path: {base}\n{paths}names: [coin, kite]\n")
    found = read_dataset(file, "val")
    assert objects(found) == ORIGINAL and found.root == tmp_path / "cards"
    assert all(i["file_name"].startswith("images/val/") for i in found.images)
    (tmp_path / "cards" / "lists").mkdir()
    for line in ("./images/val/b.png", "/content/cards/images/val/b.png", "../images/val/b.png", "images/val/b.png"):
        (tmp_path / "cards" / "lists" / "val.txt").write_text(line)
        file.write_text("val: lists/val.txt\nnames: [coin, kite]\n")
        assert [i["file_name"] for i in read_dataset(file, "val").images] == ["images/val/b.png"]


def test_the_layout_of_darknet(tmp_path):
    """As CVAT exports "YOLO 1.1"."""
    write(write_photos(tmp_path / "obj_train_data"))
    (tmp_path / "obj.names").write_text("coin\nkite\n")
    (tmp_path / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    (tmp_path / "train.txt").write_text("".join(f"data/obj_train_data/{name}\n" for name in PHOTOS))
    found = read_dataset(tmp_path)
    assert objects(found) == ORIGINAL and found.names == ["coin", "kite"]


def test_lists_of_images(tmp_path):
    write_photos(tmp_path / "images")
    write(tmp_path / "labels")
    (tmp_path / "train.txt").write_text("./images/a 1.jpg\nimages/b.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [coin, kite]\n")
    found = read_dataset(tmp_path, "train")
    assert [i["file_name"] for i in found.images] == ["images/a 1.jpg", "images/b.png"]
    (tmp_path / "train.txt").write_text("images/a 1.jpg\nimages/gone.jpg\n")
    with pytest.raises(UserError, match=r"train\.txt, line 2: image images/gone\.jpg does not exist"):
        read_dataset(tmp_path, "train")
    with pytest.raises(UserError, match="names no val or valid"):
        read_dataset(tmp_path / "data.yaml", "val")


def test_an_image_that_cannot_be_opened_is_left_out(tmp_path):
    write(write_photos(tmp_path))
    (tmp_path / "classes.txt").write_text("coin\nkite\n")
    (tmp_path / "b.png").write_bytes(b"no image")
    found = read_dataset(tmp_path)
    assert len(found.images) == 3 and "1 images that cannot be opened are left out" in found.notes[-1]
    assert "b.png" in found.notes[-1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", r"a 1\.txt, line 2: 4 numbers are neither a box"),
        ("0 0.5 0.5 0.1 0.1 0.9", r"line 2: 6 numbers are neither"),
        ("0 0.5 0.5 0.1 x", r"line 2: word 5 is 'x', not a number"),
        ("0 0.5 0.5 0.1 inf", r"line 2: word 5 is 'inf'"),
        ("2 0.5 0.5 0.1 0.1", r"line 2: class 2 is not among the 2 of .*classes\.txt"),
        ("0.5 0.5 0.5 0.1 0.1", r"line 2: class 0\.5 is not among"),
        ("0 32 20 10 10", r"line 2: coordinates are fractions of the image's size, from 0 to 1, not 32"),
        ("0 0.9 0.5 0.8 0.1", r"line 2: the object reaches outside of its image"),
        ("0 0.5 0.5 -0.1 0.1", r"line 2: coordinates are fractions"),
    ],
)
def test_refused_lines(tmp_path, line, message):
    write_photos(tmp_path)
    (tmp_path / "classes.txt").write_text("coin\nkite\n")
    (tmp_path / "a 1.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path)


def test_other_refusals(tmp_path):
    write(write_photos(tmp_path / "images") and tmp_path / "labels")
    with pytest.raises(UserError, match=r"neither a data\.yaml with names nor a classes\.txt"):
        read_dataset(tmp_path)
    (tmp_path / "data.yaml").write_text("names: 5\n")
    with pytest.raises(UserError, match=r"data\.yaml: names is neither a list nor a table"):
        read_dataset(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [coin, kite]\nkpt_shape: [17, 3]\n")
    with pytest.raises(UserError, match="key points"):
        read_dataset(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [coin, kite]\ntrain: nowhere\n")
    with pytest.raises(UserError, match=r"data\.yaml: train: nowhere does not exist"):
        read_dataset(tmp_path / "data.yaml", "train")
    (tmp_path / "labels" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UserError, match=r"gone\.txt: its image is missing from .*images"):
        read_dataset(tmp_path)
    (tmp_path / "labels" / "gone.txt").write_bytes("0 é".encode("latin-1"))
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "gone.jpg")
    with pytest.raises(UserError, match=r"gone\.txt is not text in UTF-8"):
        read_dataset(tmp_path)
