"""Splits that stay as they are when images are added; classes by name."""

import json
from pathlib import Path

import pytest
from layouts import coco, objects

from lazyrun.data.formats import AnnotatedSet
from lazyrun.data.splits import choose_classes, match_classes, select_categories, split_by_name, write_coco
from pretrain.common.errors import UserError


def numbered(count, folder=""):
    images = [{"id": i, "file_name": f"{folder}photo {i}.jpg", "width": 9, "height": 9} for i in range(count)]
    annotations = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 1, 1]} for i in range(count)]
    return AnnotatedSet(Path("set"), "x", Path(), images, annotations, [{"id": 1, "name": "a"}])


def names(part):
    return {image["file_name"].rpartition("/")[2] for image in part.images}


def test_split():
    train, val = split_by_name(numbered(1000), 0.2)
    assert len(train.images) + len(val.images) == 1000 and 150 < len(val.images) < 250
    assert all(len(p.images) == len(p.annotations) for p in (train, val))
    assert {a["image_id"] for a in val.annotations} == {i["id"] for i in val.images}
    assert names(val).isdisjoint(names(train)) and val.json_file is None
    assert "data.val_fraction=0.2" in val.notes[-1]


def test_split_is_stable():
    few, many = (split_by_name(numbered(n, folder), 0.2)[1] for n, folder in ((300, ""), (600, "more/")))
    assert names(few) == names(many) & names(numbered(300))
    assert names(few) < names(split_by_name(numbered(300), 0.4)[1])
    assert names(split_by_name(numbered(9), 0.1)[1]) == {"photo 1.jpg", "photo 8.jpg"}


def test_copies_by_roboflow_stay_together():
    whole = numbered(300)
    for image in whole.images:
        image["file_name"] = f"cat{image['id'] // 3}_jpg.rf.{image['id']:032x}.jpg"
    train, val = (names(p) for p in split_by_name(whole, 0.5))
    assert {n.partition(".")[0] for n in train}.isdisjoint(n.partition(".")[0] for n in val)


def test_an_empty_part_is_refused():
    with pytest.raises(UserError, match=r"data\.val_fraction=0\.2 of the 1 images of set leaves a part without any"):
        split_by_name(numbered(1), 0.2)


@pytest.fixture
def found():
    content = coco()
    return AnnotatedSet(Path("set"), "x", Path(), content["images"], content["annotations"], content["categories"])


def test_choosing_classes(found):
    turned = choose_classes(found, ["kite", "coin"])
    assert turned.categories == [{"id": 1, "name": "kite"}, {"id": 2, "name": "coin"}] and objects(turned) == objects(
        found
    )
    kites = choose_classes(found, ["kite"])
    assert kites.categories == [{"id": 4, "name": "kite"}]  # its own id, as the order does not change
    assert objects(kites) == [o for o in objects(found) if o[1] == "kite"] and len(kites.images) == 4
    assert kites.notes == ["1 objects of other classes are left out"]
    assert choose_classes(found, ["coin", "kite"]) is found
    with pytest.raises(UserError, match=r"data\.classes: set has no class 'bird'; it has coin, kite"):
        choose_classes(found, ["coin", "bird"])
    with pytest.raises(UserError, match="must name each class once"):
        choose_classes(found, ["coin", "coin"])


def test_matching_by_name(found):
    theirs = [{"id": 0, "name": "kite"}, {"id": 1, "name": "bird"}, {"id": 9, "name": "coin"}]
    matched = match_classes(found, theirs, "train")
    assert matched.categories == theirs and objects(matched) == objects(found) and matched.json_file is None
    assert match_classes(found, found.categories, "train") is found
    with pytest.raises(UserError, match=r"set has the class 'kite', which train does not have \(it has kites, coin\)"):
        match_classes(found, [{"id": 1, "name": "kites"}, {"id": 2, "name": "coin"}], "train")
    assert {o[1] for o in objects(select_categories(found, theirs[2:]))} == {"coin"}
    found.categories[0]["name"] = "kite"
    with pytest.raises(UserError, match="two classes called 'kite'"):
        match_classes(found, theirs, "train")


def test_writing(found, tmp_path):
    file = tmp_path / "new" / "train.json"
    write_coco(found, file)
    written = json.loads(file.read_bytes())
    assert {k: written[k] for k in ("images", "annotations", "categories")} == {
        k: coco()[k] for k in ("images", "annotations", "categories")
    }
    before = file.stat().st_mtime_ns
    write_coco(found, file)
    assert file.stat().st_mtime_ns == before and [f.name for f in file.parent.iterdir()] == ["train.json"]
