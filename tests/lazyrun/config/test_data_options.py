"""`data.train=PATH` and its companions: what a config becomes, with which classes, and what is refused."""

import json

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.events import EventStorage
from layouts import BOXES, NAMES, PHOTOS, SINGLE, coco, objects, write_photos, write_voc, write_yolo
from PIL import Image
from shapes import CONFIG, REPO, SMALL

from lazyrun.config.custom_data import use_custom_data
from lazyrun.config.data_options import temporary_cache
from lazyrun.config.loading import load_config
from lazyrun.data.categories import categories_of
from lazyrun.data.coco_check import check_datasets
from lazyrun.data.formats import read_dataset
from lazyrun.data.splits import write_coco
from lazyrun.modeling.build import build_model
from pretrain.common.errors import UserError


@pytest.fixture
def load(tmp_path):
    def load(*options, training=True, config=None):
        cfg = load_config(str(config or REPO / CONFIG), [*SMALL, f"train.output_dir={tmp_path / 'run'}", *options])
        use_custom_data(cfg, training=training)
        return cfg

    return load


@pytest.fixture
def voc(tmp_path):
    """Folder for training; `other` has the same photos with one class alone."""
    for name, boxes in (("train", BOXES), ("other", [b for b in BOXES if b[1] == "kite"])):
        write_voc(write_photos(tmp_path / name), tmp_path / name, boxes)
    return tmp_path / "train"


def test_a_path_for_each_split(load, voc, tmp_path):
    cfg = load(f"data.train={voc}", f"data.val={tmp_path / 'other'}")
    assert cfg.dataloader.train.dataset.names == str(tmp_path / "run/data/train.json")
    assert (
        cfg.dataloader.test.dataset.names
        == cfg.dataloader.evaluator.dataset_name
        == str(tmp_path / "run/data/val.json")
    )
    assert cfg.model.roi_heads.num_classes == 2 and cfg.model.roi_heads.mask_head is None
    expected = [{"id": 1, "name": "coin"}, {"id": 2, "name": "kite"}]
    assert (
        categories_of(cfg.dataloader.train.dataset.names)
        == categories_of(cfg.dataloader.test.dataset.names)
        == expected
    )
    written = json.loads((tmp_path / "run/data/val.json").read_text())
    assert written["categories"] == expected and {a["category_id"] for a in written["annotations"]} == {2}
    assert written["info"]["image_root"] == str(tmp_path / "other")
    check_datasets(cfg)
    sample = instantiate(cfg.dataloader.train.mapper)(instantiate(cfg.dataloader.train.dataset)[0])
    assert len(sample["instances"]) == 2


def test_dumped_config_is_the_same_again(load, voc, tmp_path):
    LazyConfig.save(
        load(f"data.train={voc}", "data.val_fraction=0.5", "data.classes=[kite]"), str(tmp_path / "config.yaml")
    )
    again = load_config(str(tmp_path / "config.yaml"))
    use_custom_data(again, training=True)
    LazyConfig.save(again, str(tmp_path / "again.yaml"))
    assert (tmp_path / "config.yaml").read_text() == (tmp_path / "again.yaml").read_text()


def test_polygons_train_the_mask_head(load, tmp_path):
    write_photos(tmp_path / "images")
    write_yolo(tmp_path / "labels", [], SINGLE)
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [coin, kite]\n")
    cfg = load(f"data.train={tmp_path / 'data.yaml'}", f"data.val={tmp_path}")
    assert cfg.model.roi_heads.mask_head is not None and "tasks" not in cfg.dataloader.evaluator
    check_datasets(cfg)
    assert objects(read_dataset(tmp_path, "val")) == objects(coco([], SINGLE))


def test_a_fraction_for_evaluation(load, voc, tmp_path):
    load(f"data.train={voc}", "data.val_fraction=0.5")
    train, val = (json.loads((tmp_path / f"run/data/{s}.json").read_text()) for s in ("train", "val"))
    assert len(train["images"]) == len(val["images"]) == 1 and train["categories"] == val["categories"]
    # An evaluation alone takes the same part.
    load(f"data.train={voc}", "data.val_fraction=0.5", f"data.cache={tmp_path / 'else'}", training=False)
    assert json.loads((tmp_path / "else/val.json").read_text()) == val


def test_classes(load, voc, tmp_path):
    cfg = load(f"data.train={voc}", f"data.val={voc}", "data.classes=[kite,coin]")
    assert [c["name"] for c in categories_of(cfg.dataloader.test.dataset.names)] == ["kite", "coin"]
    cfg = load(f"data.train={voc}", f"data.val={tmp_path / 'other'}", "data.classes=[coin]")
    assert [c["name"] for c in categories_of(cfg.dataloader.test.dataset.names)] == ["coin"]
    assert cfg.model.roi_heads.num_classes == 1


def losses(cfg) -> list[dict[str, float]]:
    """Of the first two steps from seeded weights, exactly."""
    torch.manual_seed(0)
    model, loader = build_model(cfg), instantiate(cfg.dataloader.train)
    found = []
    with EventStorage():
        for step, batch in zip(range(2), loader, strict=False):
            torch.manual_seed(step)
            found.append({name: value.item() for name, value in model(batch).items()})
    return found


def test_losses_are_the_same_through_voc_and_coco(load, tmp_path):
    folder = write_photos(tmp_path / "photos")
    for name in PHOTOS:
        Image.effect_noise((64, 48), 90).convert("RGB").save(folder / name, quality=95)
    write_voc(folder, folder)
    write_coco(read_dataset(folder), tmp_path / "photos.json")
    voc = losses(load(f"data.train={folder}"))
    written = losses(load(f"data.train_json={tmp_path / 'photos.json'}", f"data.train_images={folder}"))
    assert voc == written and all(loss["loss_rpn_cls"] > 0 and loss["loss_cls"] > 0 for loss in voc)
    assert losses(load(f"data.train={folder}", "data.classes=[kite]")) != voc


def test_annotation_files_are_matched_by_name(load, tmp_path):
    images = write_photos(tmp_path / "photos")
    theirs = coco()
    for entry in (*theirs["categories"], *theirs["annotations"]):
        key = "id" if "name" in entry else "category_id"
        entry[key] = 90 - entry[key]  # which also turns their order
    options = []
    for split, content in (("train", coco()), ("val", theirs)):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        options += [f"data.{split}_json={tmp_path / f'{split}.json'}", f"data.{split}_images={images}"]
    cfg = load(*options)
    assert cfg.dataloader.train.dataset.names == str(tmp_path / "train.json")  # unchanged
    assert cfg.dataloader.test.dataset.names == str(tmp_path / "run/data/val.json")
    matched = json.loads((tmp_path / "run/data/val.json").read_text())
    assert matched["categories"] == coco()["categories"] and objects(matched) == objects(coco())


def test_evaluation_alone(load, voc, tmp_path):
    weights = tmp_path / "model.pth"
    torch.save({"model": {}, "categories": [{"id": 4, "name": "kite"}, {"id": 9, "name": "coin"}]}, weights)
    cfg = load(f"data.val={tmp_path / 'other'}", f"train.init_checkpoint={weights}", training=False)
    assert categories_of(cfg.dataloader.test.dataset.names) == [{"id": 4, "name": "kite"}, {"id": 9, "name": "coin"}]
    assert cfg.model.roi_heads.num_classes == 2 and cfg.model.roi_heads.mask_head is None
    # What the checkpoint does not know is refused later, with its name; the training set comes before it.
    cfg = load(
        f"data.train={voc}", f"data.val={tmp_path / 'other'}", f"train.init_checkpoint={weights}", training=False
    )
    assert [c["name"] for c in categories_of(cfg.dataloader.test.dataset.names)] == NAMES
    cfg = load("data.train=gone", f"data.val={voc}", training=False)
    assert [c["name"] for c in categories_of(cfg.dataloader.test.dataset.names)] == NAMES


def test_nothing_to_evaluate_on(load, voc, caplog):
    with caplog.at_level("WARNING"):
        cfg = load(f"data.train={voc}")
    assert "There is no data.val: nothing will be evaluated" in caplog.text and "evaluator" not in cfg.dataloader


def test_temporary_cache(voc, tmp_path):
    cfg = load_config(str(REPO / CONFIG), [*SMALL, f"data.train={voc}", f"train.output_dir={tmp_path / 'run'}"])
    with temporary_cache(cfg):
        use_custom_data(cfg, training=True)
        assert categories_of(cfg.dataloader.train.dataset.names)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.train=gone"], "data.train=gone: there is no such file or folder"),
        (["data.val={voc}"], "data.val without data.train: training would take the config's own data"),
        (
            ["data.train={voc}", "data.train_json=a.json"],
            "data.train and data.train_json or data.train_images: name one",
        ),
        (["+data.train=5"], "data.train=5 is no path"),
        (["data.train={voc}", "data.val={voc}", "data.val_fraction=0.2"], "but data.val names one; leave one"),
        (["data.train={voc}", "data.val_fraction=2"], "data.val_fraction=2 must be a number between 0 and 1"),
        (["data.val_fraction=0.2"], "is a part of the training set; name it with data.train"),
        (["data.train={voc}", "data.classes=kite"], r"data.classes=kite must be a list of names: data.classes=\[ace"),
        (["data.train={voc}", "data.classes=[bird]"], "train has no class 'bird'; it has coin, kite"),
        (["data.train={other}", "data.val={voc}"], "has the class 'coin', which .*other does not have .it has kite"),
    ],
)
def test_mistakes(load, voc, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        load(*(o.format(voc=voc, other=tmp_path / "other") for o in options))


def test_the_written_file_is_not_its_own_source(load, voc, tmp_path):
    write_coco(read_dataset(voc), tmp_path / "run/data/train.json")
    options = [f"data.train_json={tmp_path / 'run/data/train.json'}", f"data.train_images={voc}"]
    load(*options)
    with pytest.raises(UserError, match=r"train\.json is itself what would be converted"):
        load(*options, "data.classes=[kite]")
