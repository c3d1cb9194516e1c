"""Test-time augmentation: trivial augmentations change nothing, and mirrored images give mirrored predictions."""

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf
from shapes import CONFIG, REPO, SMALL

from lazyrun.config.loading import load_config
from lazyrun.modeling.rcnn import PaddedRCNN
from lazyrun.modeling.tta import ScaleAndFlip, TestTimeAugmentation, with_tta
from pretrain.common.errors import UserError


@pytest.fixture
def model():
    return instantiate(load_config(str(REPO / CONFIG), SMALL).model).eval()


@pytest.fixture
def sample():
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    return {"image": image, "height": 64, "width": 64}


@torch.no_grad()
def predict(model, sample):
    return model([sample])[0]["instances"]


def test_one_scale_without_flip_changes_nothing(model, sample):
    plain, augmented = predict(model, sample), predict(TestTimeAugmentation(model, ScaleAndFlip([1.0], False)), sample)
    assert len(plain) > 10
    for field in ("pred_boxes", "scores", "pred_classes"):
        ours, expected = getattr(augmented, field), getattr(plain, field)
        ours, expected = (getattr(x, "tensor", x) for x in (ours, expected))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert (augmented.pred_masks != plain.pred_masks).float().mean() < 1e-3


def test_mirrored_image_gives_mirrored_boxes(model, sample):
    tta = TestTimeAugmentation(model, ScaleAndFlip([1.0, 1.5], True))
    one, other = predict(tta, sample), predict(tta, sample | {"image": sample["image"].flip(2)})
    boxes, mirrored = one.pred_boxes.tensor[:20], other.pred_boxes.tensor.clone()
    mirrored = torch.stack([64 - mirrored[:, 2], mirrored[:, 1], 64 - mirrored[:, 0], mirrored[:, 3]], dim=1)
    distance = torch.cdist(boxes, mirrored, p=torch.inf).min(dim=1).values  # equal scores may change places
    assert distance.max() < 0.01


def test_square_grows_with_the_image_and_shrinks_back(model, sample):
    seen = []
    model.backbone.net.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    predict(TestTimeAugmentation(model, ScaleAndFlip([1.6], False)), sample)
    assert set(seen) == {(104, 104)}  # 64 * 1.6 = 102, to the next multiple of 8
    assert model.backbone._square_pad == 64


def test_choices_of_the_config(model):
    cfg = load_config(str(REPO / CONFIG), ["test.tta.enabled=true", "test.tta.scales=[1.0,2.0]", "test.tta.flip=false"])
    tta = with_tta(cfg, model)
    assert tta.tta_mapper.scales == [1.0, 2.0] and tta.tta_mapper.flip is False
    assert with_tta(load_config(str(REPO / CONFIG)), model) is model
    for scales in ([], 1.0, [1.0, 0], ["large"]):
        cfg.test.tta.scales = scales
        with pytest.raises(UserError, match=r"test\.tta\.scales=.* must be one or more positive numbers"):
            with_tta(cfg, model)
    with pytest.raises(UserError, match="images are padded before they are scaled"):
        with_tta(cfg, PaddedRCNN.__new__(PaddedRCNN))
    with pytest.raises(UserError, match="augments R-CNN models alone, not Linear"):
        with_tta(OmegaConf.merge(cfg, {"test": {"tta": {"scales": [1.0]}}}), torch.nn.Linear(1, 1))


def test_cascade_and_boxes_alone(sample):
    overrides = ["data.image_size=64", "model.backbone.net.embed_dim=[8,8,16]", "model.backbone.net.depth=[1,1,2]",
                 "model.backbone.net.num_heads=2", "model.backbone.net.window_block_indexes=[0]",
                 "model.proposal_generator.post_nms_topk=[20,20]"]  # fmt: skip
    config = REPO / "projects/ConvMAEDet/configs/COCO/cascade_mask_rcnn_vitdet_convmae_b_25ep.py"
    cfg = load_config(str(config), [*overrides, "model.roi_heads.num_classes=3"])
    cfg.model.roi_heads.update(mask_in_features=None, mask_head=None, mask_pooler=None)
    model = instantiate(cfg.model).eval()
    tta = TestTimeAugmentation(model, ScaleAndFlip([1.0], True))
    instances = predict(tta, sample)
    assert len(instances) and not instances.has("pred_masks")
    assert tta.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
