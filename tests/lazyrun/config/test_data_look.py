"""A look at data before training: what is found, and that the verdict is that of the training's own check."""

import json

import pytest
import tiny_coco
from layouts import BOXES, coco, write_photos, write_voc
from PIL import Image
from shapes import CONFIG, REPO

from lazyrun.config.custom_data import use_custom_data
from lazyrun.config.data_look import look_at_data
from lazyrun.config.loading import load_config
from lazyrun.data.coco_check import check_datasets
from pretrain.common.errors import UserError


@pytest.fixture
def photos(tmp_path):
    """A COCO file and its ten images; `write(content)` replaces the file."""
    for image in tiny_coco.content()["images"]:
        size = image["width"], image["height"]
        Image.new("RGB", size, (image["id"], 0, 0)).save(tmp_path / image["file_name"])
    tiny_coco.write(tmp_path, tiny_coco.content())
    return tmp_path


def refused_by_training(path, *overrides):
    """What the training command says of the same data; None if it begins."""
    cfg = load_config(str(REPO / CONFIG), [f"data.train={path}", f"data.cache={path.parent}/converted", *overrides])
    try:
        use_custom_data(cfg, training=True)
        check_datasets(cfg)
    except UserError as e:
        return str(e)
    return None


def of_first(**changes):
    return lambda content: content["annotations"][0].update(changes)


def drop(key):
    return lambda content: content.update({key: []})


def all_crowds(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


FAULTS = [
    (lambda content: None, None),
    (of_first(bbox=[60, 1, 30, 8]), "boxes outside their image"),
    (of_first(segmentation=[[1, 1, 1e9, 1, 9, 9]]), "segmentation cannot be used"),
    (of_first(segmentation=None), "annotations without segmentation"),
    (of_first(image_id=77), "annotations of unknown images"),
    (of_first(id=2), "annotation ids used twice"),
    (lambda content: content["images"][0].update(width=65), "1.png is 64x48, not 65x48"),
    (lambda content: content["images"][0].update(file_name="gone.png"), "gone.png is missing from"),
    (drop("annotations"), "there is no annotation to train on"),
    (all_crowds, "all annotations are crowds"),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS)
def test_the_verdict_is_that_of_the_training(photos, change, fault):
    content = tiny_coco.content()
    change(content)
    tiny_coco.write(photos, content)
    refusals, said = look_at_data(photos / "data.json").refusals, refused_by_training(photos / "data.json")
    assert bool(refusals) == (said is not None) == (fault is not None)
    if fault is not None:
        assert fault in refusals[0] and fault in said


def test_the_log_of_a_training_has_the_table(photos, caplog):
    with caplog.at_level("INFO"):
        assert refused_by_training(photos / "data.json", f"data.val={photos}/data.json") is None
    (table,) = (r.getMessage() for r in caplog.records if r.getMessage().startswith("The data in figures"))
    assert [line.split()[:2] for line in table.splitlines()[1:3]] == [["training", "evaluation"], ["images", "10"]]
    assert "class kite" in table and "half of the least anchor (16)" in table


def test_masks_that_evaluation_alone_has(photos, tmp_path_factory):
    content = tiny_coco.content()
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    folder = tmp_path_factory.mktemp("boxes")
    tiny_coco.write(folder, content)
    for image in content["images"]:
        (folder / image["file_name"]).symlink_to(photos / image["file_name"])
    partly = tiny_coco.content()
    del partly["annotations"][0]["segmentation"]
    tiny_coco.write(photos, partly)
    assert not look_at_data(folder, photos).refusals
    assert "without segmentation" in look_at_data(photos, folder).refusals[0]


def test_every_case_is_listed_with_file_and_id(photos):
    content = tiny_coco.content()
    for annotation in content["annotations"][:5]:
        annotation["segmentation"] = [[1, 2, 3]]
    tiny_coco.write(photos, content)
    look = look_at_data(photos)
    (finding,) = look.sets["training"].faults
    assert finding.count == 5 and finding.cases[4].startswith("2.png: annotation 5: a polygon of 3 numbers")
    assert not look.figures


def test_all_mistakes_in_annotation_files_at_once(tmp_path):
    bad = [(name, label, [60, 0, 64, 48]) for name, label, _ in BOXES]
    write_voc(write_photos(tmp_path / "cards"), tmp_path / "cards", bad)
    (tmp_path / "cards" / "b.xml").write_text("<annotation>")
    refusals = look_at_data(tmp_path / "cards").refusals
    assert len(refusals) == 4 and sum("reaches outside of its image" in r for r in refusals) == 3
    assert "b.xml is not an XML file" in " ".join(refusals)
    said = refused_by_training(tmp_path / "cards")
    assert all(r.removeprefix("training: ") in said for r in refusals)


def test_bad_images_up_to_the_share(photos):
    (photos / "3.png").write_bytes(b"cut off")
    assert "1 image files that cannot be read (3.png)" in look_at_data(photos).refusals[0]
    look = look_at_data(photos, overrides=["data.max_corrupt=0.1"])
    assert not look.refusals and not refused_by_training(photos, "data.max_corrupt=0.1")
    mended = {f.kind: f.cases for f in look.sets["training"].mended}
    assert mended == {"image files that cannot be read": ["3.png: it is no image of a known format"]}


def test_two_sets(photos, tmp_path_factory):
    val = tmp_path_factory.mktemp("val")
    content = tiny_coco.content(2)
    tiny_coco.write(val, content)
    (val / "1.png").write_bytes((photos / "1.png").read_bytes())
    Image.new("RGB", (64, 48), "white").save(val / "2.png")
    look = look_at_data(photos, val)
    assert list(look.figures) == ["training", "evaluation"] and not look.refusals
    (shared,) = look.shared
    assert shared.cases == ["1.png (training) = 1.png (evaluation)"]
    content["categories"][0]["name"] = "bird"
    tiny_coco.write(val, content)
    look = look_at_data(photos, val)
    assert list(look.figures) == ["training"] and "the class 'bird', which" in look.refusals[0]
    look = look_at_data(photos, val / "none")
    assert list(look.figures) == ["training"] and "none: there is no such file" in look.refusals[0]


def test_options_and_config(photos):
    look = look_at_data(photos, overrides=["data.val_fraction=0.4", "data.classes=[kite,disc]"], image_size=32)
    train, val = look.figures.values()
    assert list(train.objects_of) == ["kite", "disc"] and len(train.per_image) + len(val.per_image) == 10
    assert look.model.max_size == 32
    look = look_at_data(photos, config_file=str(REPO / CONFIG), image_size=48)
    assert look.model.anchors == (16, 24, 32) and look.model.max_size == 48 and not look.refusals
    with pytest.raises(UserError, match=r"did you mean 'data\.classes'"):
        look_at_data(photos, overrides=["data.clases=[kite]"])
    with pytest.raises(UserError, match="no annotations beside its 0 images"):
        (photos / "empty").mkdir()
        look_at_data(photos / "empty")


def test_coco_without_masks_and_background(tmp_path):
    write_photos(tmp_path)
    (tmp_path / "data.json").write_text(json.dumps(coco(BOXES)))
    look = look_at_data(tmp_path)
    assert not look.refusals and look.figures["training"].masks == {"box alone": 3}
