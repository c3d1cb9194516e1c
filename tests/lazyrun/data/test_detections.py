"""`data.max_detections` reaches every place that limits how many objects are detected and counted."""

import pytest
from detectron2 import model_zoo
from detectron2.config import instantiate
from omegaconf import OmegaConf
from shapes import CONFIG, REPO, SMALL

from lazyrun.config.loading import load_config
from lazyrun.data.detections import max_detections, set_max_detections
from pretrain.common.errors import UserError

CONFIGS = REPO / "projects/ConvMAEDet/configs"


def test_one_number_for_model_proposals_and_evaluation():
    cfg = load_config(str(REPO / CONFIG), [*SMALL, "data.max_detections=375"])
    assert cfg.model.roi_heads.box_predictor.test_topk_per_image == 375
    assert cfg.model.proposal_generator.post_nms_topk == [50, 375]  # training keeps its number
    assert cfg.model.proposal_generator.pre_nms_topk == [150, 375]
    assert cfg.dataloader.evaluator.max_dets_per_image == 375 and max_detections(cfg) == 375
    model = instantiate(cfg.model)
    assert model.roi_heads.box_predictor.test_topk_per_image == 375
    assert model.proposal_generator.post_nms_topk == {True: 50, False: 375}


def test_without_it_a_config_keeps_its_numbers():
    cfg = load_config(str(REPO / CONFIG), SMALL)
    assert "test_topk_per_image" not in cfg.model.roi_heads.box_predictor and max_detections(cfg) == 100
    assert "max_dets_per_image" not in cfg.dataloader.evaluator
    assert max_detections(load_config(str(CONFIGS / "LVIS/mask_rcnn_vitdet_convmae_b_100ep.py"))) == 300


def test_cascade():
    cfg = load_config(str(CONFIGS / "COCO/cascade_mask_rcnn_vitdet_convmae_b_25ep.py"), ["data.max_detections=200"])
    assert [p.test_topk_per_image for p in cfg.model.roi_heads.box_predictors] == [200, 200, 200]
    assert cfg.model.proposal_generator.post_nms_topk[1] == 1000


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_detectors_without_proposals(name):
    model = model_zoo.get_config(f"common/models/{name}.py").model
    cfg = OmegaConf.create({"data": {"max_detections": 2000}, "dataloader": {}}, flags={"allow_objects": True})
    cfg.model = model
    set_max_detections(cfg)
    built = instantiate(cfg.model)
    assert built.max_detections_per_image == 2000 and built.test_topk_candidates >= 1000


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "true"])
def test_no_number(value):
    with pytest.raises(UserError, match=r"data\.max_detections=\S+ must be a whole number, at least 1"):
        load_config(str(REPO / CONFIG), [f"data.max_detections={value}"])


def test_a_number_that_the_evaluation_has_no_room_for():
    with pytest.raises(UserError, match=r"data\.max_detections=9+: whole numbers must be below 2\*\*31"):
        load_config(str(REPO / CONFIG), ["data.max_detections=99999999999999999999"])
