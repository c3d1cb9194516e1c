"""A small model of every family with random weights, and predictors of them."""

from contextlib import contextmanager

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import ViT
from parity import REPO

from lazyrun.config.loading import load_config
from lazyrun.config.task import task_of

COCO = "projects/ConvMAEDet/configs/COCO/"
PADDED = "projects/MIMDet/configs/COCO/"
NET = {"embed_dim": (8, 16, 24), "depth": (1, 1, 2), "num_heads": 2}


def _vitdet(cfg):
    cfg.model.backbone.net.update(NET, window_block_indexes=[0], window_size=3, rel_pos_zero_init=False)


def _vit(cfg):
    cfg.model.backbone.net.update(embed_dim=24, depth=2, num_heads=2, window_block_indexes=[0], window_size=3)
    assert cfg.model.backbone.net._target_ in (ViT, "detectron2.modeling.ViT")


def _fpn(cfg):
    cfg.model.backbone.bottom_up.update(NET, global_block_indexes=[0], window_size=3)


def _benchmarking(cfg):
    cfg.model.backbone.bottom_up.update(embed_dim=32, depth=4, num_heads=2, window_size=3)


def _mimdet(cfg):
    cfg.model.backbone.bottom_up.update(
        img_size=64, embed_dim=32, depth=1, num_heads=2, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2
    )
    cfg.data.update(test_short_edge=48, max_size=62)


FAMILIES = {
    "demo": ("projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py", None),
    "ViTDet, ConvViT": (f"{COCO}mask_rcnn_vitdet_convmae_b_25ep.py", _vitdet),
    "ViTDet, ViT": (f"{COCO}mask_rcnn_vitdet_b_100ep.py", _vit),
    "cascade": (f"{COCO}cascade_mask_rcnn_vitdet_convmae_b_25ep.py", _vitdet),
    "ConvMAE-FPN": (f"{PADDED}convmae_base_mask_rcnn_FPN_25ep.py", _fpn),
    "Benchmarking ViT": (f"{PADDED}benchmarking_mask_rcnn_base_FPN_25ep_LSJ_mae.py", _benchmarking),
    "MIMDet": (f"{PADDED}mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.py", _mimdet),
    "UperNet": ("projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py", None),
}
DETECTORS = [name for name in FAMILIES if name != "UperNet"]


def _small_heads(model):
    """Few channels, proposals and classes: what is compared is the way of the boxes, not what the layers learn."""
    model.backbone.out_channels = 16
    model.proposal_generator.update(pre_nms_topk=(40, 40), post_nms_topk=(20, 20))
    model.proposal_generator.head.in_channels = 16
    heads = model.roi_heads
    heads.num_classes = 5
    cascade = "box_heads" in heads
    for head in heads.box_heads if cascade else [heads.box_head]:
        head.update(input_shape=ShapeSpec(channels=16, height=7, width=7), conv_dims=[16], fc_dims=[32])
    for predictor in heads.box_predictors if cascade else [heads.box_predictor]:
        predictor.input_shape = ShapeSpec(channels=32)
    heads.mask_head.update(input_shape=ShapeSpec(channels=16, height=14, width=14), conv_dims=[16, 16])


def tiny_config(family: str):
    """The family's config, shrunk to images of 64 pixels."""
    file, shrink = FAMILIES[family]
    cfg = load_config(str(REPO / file))
    if "image_size" in cfg.data:
        cfg.data.image_size = 64
    if shrink:
        shrink(cfg)
        _small_heads(cfg.model)
    return cfg


def tiny_predictor(family: str):
    """A predictor with random weights that finds something in any image."""
    torch.manual_seed(0)
    cfg = tiny_config(family)
    task = task_of(cfg)
    with _random_weights():
        predictor = task.predictor(cfg, "none", device="cpu")
    for name, parameter in predictor.model.named_parameters():
        if any(part in name for part in ("cls_score", "bbox_pred", "objectness_logits", "anchor_deltas", "mask_head")):
            parameter.data *= 8  # as far apart as those of a trained one: else rounding decides what is kept
    return predictor


@contextmanager
def _random_weights():
    """Predictors keep the weights that their models are built with."""
    from lazyrun.inference import predictor

    kept = predictor.load_weights
    predictor.load_weights = lambda *args, **kwargs: None
    try:
        yield
    finally:
        predictor.load_weights = kept


def pictures(count: int = 3) -> list[np.ndarray]:
    """RGB pictures of several sizes with coloured rectangles."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(count):
        height, width = (60, 90, 44)[number % 3], (80, 64, 44)[number % 3]
        image = generator.integers(0, 60, (height, width, 3), dtype=np.uint8)
        for _ in range(4):
            y, x = generator.integers(0, height - 20), generator.integers(0, width - 20)
            image[y : y + 20, x : x + 15] = generator.integers(0, 256, 3)
        made.append(image)
    return made


__all__ = ["DETECTORS", "FAMILIES", "pictures", "tiny_config", "tiny_predictor"]
