"""ConvMAE detection for detectron2: the ConvViT backbones and what trains it."""

from convmae_det import datasets as _register_datasets  # noqa: F401
from convmae_det.backbone import ConvViT
from convmae_det.fpn_backbone import ConvViTFPN
from convmae_det.lr_decay import get_vit_lr_decay_rate
from convmae_det.predictor import Predictor

__all__ = ["ConvViT", "ConvViTFPN", "Predictor", "get_vit_lr_decay_rate"]
