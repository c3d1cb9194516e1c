"""The predictor gives what an evaluation gives."""

import json

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.data.detection_utils import read_image
from detectron2.layers import ShapeSpec
from shapes import CONFIG, REPO, SMALL

from convmae_det import Predictor
from lazyrun.config.loading import load_config
from lazyrun.engine.checkpoint import RunCheckpointer
from lazyrun.engine.evaluate import evaluate
from pretrain.common.errors import UserError

CLASSES = [{"id": i, "name": name} for i, name in enumerate(("circle", "square", "triangle", "star"), start=1)]
ONE_BY_ONE = [*SMALL, "dataloader.test.batch_size=1"]


def save(model, folder, categories=None) -> str:
    checkpointer = RunCheckpointer(model, str(folder))
    checkpointer.categories = categories
    checkpointer.save_weights("weights")
    return str(folder / "weights.pth")


@pytest.fixture
def shapes_val(shapes, monkeypatch):
    """The configs' `shapes_val`, though its folder was not known when detectron2 registered it."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from convmae_det.datasets import register_shapes

    for name in ("shapes_train", "shapes_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_shapes(shapes)
    return shapes / "shapes" / "val"


@pytest.mark.parametrize("extra", [[], ["test.tta.enabled=true"], ["test.slice=40"]], ids=["plain", "tta", "slices"])
def test_equals_evaluation(shapes_val, tmp_path, extra):
    cfg = load_config(str(REPO / CONFIG), [*ONE_BY_ONE, *extra])
    cfg.dataloader.evaluator.output_dir = str(tmp_path)
    weights = save(instantiate(cfg.model), tmp_path, CLASSES)
    predictor = Predictor(str(REPO / CONFIG), weights, overrides=[*ONE_BY_ONE, *extra], device="cpu")
    evaluate(cfg, getattr(predictor.model, "model", predictor.model))
    expected = json.loads((tmp_path / "coco_instances_results.json").read_text())
    ours = []
    for image_id, path in enumerate(sorted(shapes_val.iterdir()), start=1):
        ours += predictor.to_coco(predictor(path), image_id)
    assert len(ours) > 100 and ours == expected


def test_inputs_and_outputs(shapes_val, tmp_path):
    weights = save(instantiate(load_config(str(REPO / CONFIG), SMALL).model), tmp_path)
    predictor = Predictor(str(REPO / CONFIG), weights, overrides=SMALL, device="cpu", batch_size=2)
    assert predictor.class_names == ["circle", "square", "triangle", "star"]  # of the config's data set
    paths = sorted(shapes_val.iterdir())[:3]
    from_files = predictor(paths)
    assert len(from_files) == 3 and from_files[0].pred_masks.shape[1:] == (64, 64)
    array = np.ascontiguousarray(read_image(str(paths[0]), "BGR")[:, :, ::-1])
    assert torch.equal(predictor([array, array])[0].scores, from_files[0].scores)
    threshold = float(from_files[0].scores.median())
    predictor.score_threshold = threshold
    assert 0 < len(predictor(array)) < len(from_files[0]) and predictor(array).scores.min() >= threshold
    with pytest.raises(ValueError, match=r"must be RGB uint8 \(H, W, 3\), got float64 \(4, 4\)"):
        predictor(np.zeros((4, 4)))
    assert predictor([]) == []


def test_class_count_and_names_come_from_the_checkpoint(shapes_val, tmp_path):
    classes = [{"id": 7, "name": "coin"}, {"id": 90, "name": "kite"}]
    model = instantiate(load_config(str(REPO / CONFIG), [*SMALL, "model.roi_heads.num_classes=2"]).model)
    predictor = Predictor(str(REPO / CONFIG), save(model, tmp_path, classes), overrides=SMALL, device="cpu")
    results = predictor.to_coco(predictor(next(shapes_val.iterdir())), image_id=5)
    assert predictor.class_names == ["coin", "kite"]
    assert {r["category_id"] for r in results} == {7, 90} and {r["image_id"] for r in results} == {5}


def test_config_of_detectron2(shapes_val, tmp_path):
    """The zoo's configs read BGR and resize in another way."""
    cfg = load_config(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"))
    stages = cfg.model.backbone.bottom_up.stages
    stages.depth = 18
    del stages["stride_in_1x1"]
    cfg.model.roi_heads.box_head.fc_dims = [16, 16]
    cfg.model.roi_heads.box_predictor.update(input_shape=ShapeSpec(channels=16), test_score_thresh=0.0)
    cfg.dataloader.test.mapper.augmentations[0].short_edge_length = 96
    model = instantiate(cfg.model).eval()
    predictor = Predictor(cfg, save(model, tmp_path), device="cpu")
    assert predictor.categories[12] == {"id": 14, "name": "parking meter"}
    path = next(shapes_val.iterdir())
    sample = {"file_name": str(path), "height": 64, "width": 64}
    with torch.no_grad():
        expected = model([instantiate(cfg.dataloader.test.mapper)(sample)])[0]["instances"]
    ours = predictor(path)
    assert len(ours) > 10 and torch.equal(ours.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(ours.scores, expected.scores) and torch.equal(ours.pred_masks, expected.pred_masks)


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="No weights"):
        Predictor(str(REPO / CONFIG))
    with pytest.raises(FileNotFoundError, match=r"weights: Checkpoint no\.pth does not exist"):
        Predictor(str(REPO / CONFIG), "no.pth", device="cpu")
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(UserError, match=f"Device {device} cannot be used: .* Leave it out, or name cpu"):
            Predictor(str(REPO / CONFIG), "no.pth", device=device)
    model = instantiate(load_config(str(REPO / CONFIG), [*SMALL, "model.roi_heads.num_classes=2"]).model)
    with pytest.raises(UserError, match=r"have another shape .*; is it from another config"):
        Predictor(str(REPO / CONFIG), save(model, tmp_path), overrides=SMALL, device="cpu")
