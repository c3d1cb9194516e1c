"""Data sets named on the command line: what they change in a config, and what is wrong with them."""

import json

import pytest
from custom import CATEGORIES, NAMES, write_custom
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.evaluation import LVISEvaluator
from shapes import CONFIG, REPO, SMALL

from lazyrun.config.custom_data import set_class_count, use_custom_data
from lazyrun.config.loading import load_config
from lazyrun.data.categories import categories_of, check_same_classes
from lazyrun.data.coco_check import check_datasets
from lazyrun.engine.checkpoint import RunCheckpointer
from pretrain.common.errors import UserError

CONFIGS = REPO / "projects/ConvMAEDet/configs"
IN_ORDER = sorted(CATEGORIES, key=lambda c: c["id"])


def load(options, config=CONFIG, training=True):
    cfg = load_config(str(REPO / config), [*(SMALL if config == CONFIG else ()), *options])
    use_custom_data(cfg, training=training)
    return cfg


def test_classes_reach_heads_data_and_metadata(shapes, tmp_path):
    cfg = load(write_custom(shapes, tmp_path))
    heads = cfg.model.roi_heads
    assert heads.num_classes == heads.box_predictor.num_classes == heads.mask_head.num_classes == 3
    name = cfg.dataloader.train.dataset.names
    assert cfg.dataloader.evaluator.dataset_name == cfg.dataloader.test.dataset.names == str(tmp_path / "val.json")
    assert categories_of(name) == IN_ORDER
    dataset = instantiate(cfg.dataloader.train.dataset)
    assert MetadataCatalog.get(name).thing_classes == NAMES
    assert {a["category_id"] for d in dataset for a in d["annotations"]} <= {0, 1, 2}
    check_datasets(cfg)


def test_dumped_config_is_the_same_again(shapes, tmp_path):
    LazyConfig.save(load(write_custom(shapes, tmp_path)), str(tmp_path / "config.yaml"))
    cfg = load_config(str(tmp_path / "config.yaml"))
    use_custom_data(cfg, training=True)
    LazyConfig.save(cfg, str(tmp_path / "again.yaml"))
    assert (tmp_path / "config.yaml").read_text() == (tmp_path / "again.yaml").read_text()


def test_cascade_and_lvis_configs(shapes, tmp_path):
    options = write_custom(shapes, tmp_path)
    cascade = load(options, CONFIGS / "COCO/cascade_mask_rcnn_vitdet_convmae_b_25ep.py").model.roi_heads
    assert [p.num_classes for p in cascade.box_predictors] == [3, 3, 3] and cascade.mask_head.num_classes == 3
    lvis = load(options, CONFIGS / "LVIS/mask_rcnn_vitdet_convmae_b_100ep.py")
    assert lvis.model.roi_heads.box_predictor.use_fed_loss is False
    assert lvis.dataloader.evaluator._target_ not in (LVISEvaluator, "detectron2.evaluation.LVISEvaluator")


@pytest.mark.parametrize("name", ["common/models/retinanet.py", "common/models/panoptic_fpn.py"])
def test_other_models_of_detectron2(name):
    model = model_zoo.get_config(name).model
    set_class_count(model, 5)
    assert model.get("roi_heads", model).num_classes == 5
    assert "sem_seg_head" not in model or model.sem_seg_head.num_classes == 54


def test_boxes_alone(shapes, tmp_path, caplog):
    with caplog.at_level("INFO"):
        cfg = load(write_custom(shapes, tmp_path, masks=False))
    assert "has no segmentation: boxes alone are trained, the mask head is off" in caplog.text
    assert cfg.model.roi_heads.mask_head is None and cfg.dataloader.evaluator.tasks == ["bbox"]
    assert not instantiate(cfg.model).roi_heads.mask_on
    check_datasets(cfg)
    sample = instantiate(cfg.dataloader.train.mapper)(instantiate(cfg.dataloader.train.dataset)[0])
    assert not sample["instances"].has("gt_masks")
    # The published config crops, and takes boxes from the masks after that.
    instantiate(load(write_custom(shapes, tmp_path, masks=False), CONFIGS / "COCO/mask_rcnn_vitdet_convmae_b_25ep.py")
                .dataloader.train.mapper)  # fmt: skip


def test_masks_for_training_boxes_for_evaluation(shapes, tmp_path):
    (tmp_path / "boxes").mkdir()
    options = write_custom(shapes, tmp_path)[:2] + write_custom(shapes, tmp_path / "boxes", masks=False)[2:]
    cfg = load(options)
    assert cfg.model.roi_heads.mask_head is not None and cfg.dataloader.evaluator.tasks == ["bbox"]
    check_datasets(cfg)


def test_run_length_masks_are_read_as_bitmaps(shapes, tmp_path):
    options = write_custom(shapes, tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    content["annotations"][0]["segmentation"] = {"size": [64, 64], "counts": [0, 4096]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    cfg = load(options)
    assert cfg.dataloader.train.mapper.instance_mask_format == "bitmask"
    check_datasets(cfg)


def test_without_validation_set(shapes, tmp_path, caplog):
    with caplog.at_level("INFO"):
        cfg = load(write_custom(shapes, tmp_path)[:2])
    assert "evaluator" not in cfg.dataloader and "nothing will be evaluated" in caplog.text
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    later = load_config(str(tmp_path / "config.yaml"), write_custom(shapes, tmp_path)[2:])
    use_custom_data(later, training=False)
    assert instantiate(later.dataloader.evaluator)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: [o[0]], "data.train_json needs data.train_images"),
        (lambda o: [o[1]], "data.train_images needs data.train_json"),
        (lambda o: o[2:], "data.val_json without data.train_json"),
        (lambda o: ["data.train_json=no.json", o[1]], "data.train_json=no.json: there is no such file"),
        (lambda o: [o[0], "data.train_images=no"], "data.train_images=no: there is no such folder"),
        (lambda o: [f"data.train_json={REPO / 'README.md'}", o[1]], "README.md: is not a COCO annotation file"),
    ],
)
def test_mistakes(shapes, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load(change(write_custom(shapes, tmp_path)))


@pytest.mark.parametrize("change", [{"id": None}, {"name": 5}])
def test_malformed_categories(shapes, tmp_path, change):
    options = write_custom(shapes, tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    content["categories"][0].update(change)
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"train\.json: category .* needs a whole number as id and a text as name"):
        load(options)


@pytest.mark.parametrize(("split", "purpose"), [("train", "train on"), ("val", "evaluate on")])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], "all annotations are crowds .*: there is none to"),
        (lambda c: c["annotations"].clear(), "there is no annotation to"),
        (lambda c: [a.update(bbox=[0, 0, 0, 0]) for a in c["annotations"]], r"none of its \d+ boxes has an area"),
    ],
)
def test_sets_without_a_single_object(shapes, tmp_path, split, purpose, change, message):
    options = write_custom(shapes, tmp_path)
    content = json.loads((tmp_path / f"{split}.json").read_text())
    change(content)
    (tmp_path / f"{split}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{split}\.json: {message}") as refusal:
        check_datasets(load(options))
    assert "has an area" in message or purpose in str(refusal.value)
    assert "segmentation" not in str(refusal.value)


def test_other_categories_for_evaluation(shapes, tmp_path):
    options = write_custom(shapes, tmp_path)
    content = json.loads((tmp_path / "val.json").read_text())
    content["categories"][0]["name"] = "bird"
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"val.json has the class 'bird', which .*train.json does not have .it has coin, box, kite."
    ):
        load(options)


def test_checkpoint_of_other_classes(shapes, tmp_path):
    cfg = load(write_custom(shapes, tmp_path))
    checkpointer = RunCheckpointer(instantiate(cfg.model), str(tmp_path))
    checkpointer.categories = categories_of("shapes_val") or [{"id": 1, "name": "circle"}]
    checkpointer.save_weights("other")
    checkpointer.categories = IN_ORDER
    checkpointer.save_weights("same")
    name = cfg.dataloader.test.dataset.names
    check_same_classes(str(tmp_path / "same.pth"), name, "name another.")
    with pytest.raises(UserError, match=r"was trained on .*circle.*has 3 classes \(coin, box, kite\)"):
        check_same_classes(str(tmp_path / "other.pth"), name, "name another.")
