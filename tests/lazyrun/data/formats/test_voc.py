"""Pascal VOC in its layouts; what is refused, with file and object."""

import pytest
from layouts import BOXES, coco, objects, write_photos, write_voc

from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError

ORIGINAL = objects(coco(BOXES))


@pytest.mark.parametrize("folders", [(".", "."), ("JPEGImages", "Annotations"), ("images", "xml")])
def test_round_trip(tmp_path, folders, caplog):
    images, annotations = (tmp_path / f for f in folders)
    write_photos(images)
    write_voc(images, annotations)
    with caplog.at_level("INFO"):
        found = read_dataset(tmp_path)
    assert objects(found) == ORIGINAL and found.names == ["coin", "kite"]
    assert "Pascal VOC, 2 images, 3 objects of 2 classes (coin, kite)" in caplog.text
    assert "2 images without XML file are left out (b.png, empty.jpg)" in caplog.text
    assert {(i["width"], i["height"]) for i in found.images} == {(64, 48)}


def test_image_sets(tmp_path):
    images = write_photos(tmp_path / "VOC2012" / "JPEGImages")
    write_voc(images, tmp_path / "VOC2012" / "Annotations")
    lists = tmp_path / "VOC2012" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a 1\n".replace(" ", "_"))
    with pytest.raises(UserError, match=r"train\.txt: a_1 has no XML file"):
        read_dataset(tmp_path, "train")
    (lists / "train.txt").write_text("été\n", encoding="utf-8")
    found = read_dataset(tmp_path, "train")
    assert objects(found) == [o for o in ORIGINAL if o[0] == "été.JPG"]
    assert "its part 'train', 1 of 2 files" in found.notes
    with pytest.raises(UserError, match=r"Main has no val\.txt or valid\.txt"):
        read_dataset(tmp_path, "val")
    assert objects(read_dataset(tmp_path)) == ORIGINAL


def test_folders_called_train_and_valid(tmp_path):
    for part in ("train", "valid"):
        write_voc(write_photos(tmp_path / part), tmp_path / part)
    found = read_dataset(tmp_path, "val")
    assert objects(found) == ORIGINAL and all(i["file_name"].startswith("valid/") for i in found.images)


def test_stale_file_name_polygon_and_one_file(tmp_path):
    write_voc(write_photos(tmp_path), tmp_path)
    file = tmp_path / "été.xml"
    text = file.read_text(encoding="utf-8").replace("<filename>été.JPG", "<filename>DSC_1.jpg")
    outline = "<polygon><x1>5</x1><y1>6</y1><x2>12</x2><y2>6</y2><x3>5</x3><y3>14.5</y3></polygon></object>"
    file.write_text(text.replace("</object>", outline), encoding="utf-8-sig")
    found = read_dataset(file)
    assert objects(found) == [("été.JPG", "kite", [5, 6, 7, 8.5], [[5, 6, 12, 6, 5, 14.5]])]


def replace(old, new):
    return lambda file: file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]><annotation><filename>&y;</filename></annotation>'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("<xmax>30", "<xmax>wide"), r"a 1\.xml: object 1 \(coin\): xmax is 'wide', not a number"),
        (replace("<xmax>30", "<xmax>nan"), r"xmax is 'nan', not a number"),
        (replace("<xmax>30", "<xmax>3"), r"a 1\.xml: object 1 \(coin\): .* negative width"),
        (replace("<xmax>30", "<xmax>300"), r"object 1 \(coin\): .*outside of its image: x 10 to 300"),
        (replace("<name>coin", "<name> "), r"object 1 \(\): it has no class name"),
        (replace("bndbox", "robndbox"), "is not an XML file"),
        (lambda f: f.write_text("<annotation><object>"), r"a 1\.xml is not an XML file"),
        (lambda f: f.write_text(BOMB), r"a 1\.xml: it has a DOCTYPE"),
        (lambda f: f.with_suffix(".jpg").unlink(), r"a 1\.xml: its image a 1\.jpg is missing from"),
    ],
)
def test_refusals(tmp_path, change, message):
    write_voc(write_photos(tmp_path), tmp_path)
    change(tmp_path / "a 1.xml")
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path)
