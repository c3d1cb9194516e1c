"""ConvMAE detection for detectron2: the ConvViT backbones and what trains them.

Importing this package registers the generated shapes with detectron2, and the names and the conversion of
pretraining files with :mod:`lazyrun`.
"""

from typing import Any

from convmae_det import datasets as _register_datasets  # noqa: F401
from convmae_det.backbone import ConvViT
from convmae_det.fpn_backbone import ConvViTFPN
from convmae_det.fused_backbone import FusedConvViT
from convmae_det.load_pretrained import load_pretrained
from convmae_det.lr_decay import get_vit_lr_decay_rate
from convmae_det.moved import redirect_moved_modules
from lazyrun.config.trust import trust_packages
from lazyrun.data.weight_names import register_weight_names
from lazyrun.modeling.weights import register_weight_loader
from pretrain.checkpoints.published import local_weights

__all__ = ["ConvViT", "ConvViTFPN", "FusedConvViT", "Predictor", "get_vit_lr_decay_rate"]

register_weight_loader(load_pretrained)
register_weight_names(local_weights)
trust_packages("convmae_det", "convmae_seg", "mimdet", refused=["convmae_det.study"])
redirect_moved_modules()


def __getattr__(name: str) -> Any:
    if name == "Predictor":  # not imported with the backbones: it needs OpenCV and matplotlib
        from lazyrun.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
