"""Semantic segmentation for detectron2: UperNet on ConvMAE's ConvViT."""

from typing import Any

from convmae_seg import datasets as _register_datasets  # noqa: F401
from convmae_seg.backbone import ConvViTSeg
from convmae_seg.lr_decay import get_segmentor_lr_decay_rate
from convmae_seg.segmentor import Segmentor
from convmae_seg.sliding_window import SlidingWindow
from convmae_seg.upernet import FCNHead, UperHead

__all__ = [
    "ConvViTSeg",
    "FCNHead",
    "SegmentationPredictor",
    "Segmentor",
    "SlidingWindow",
    "UperHead",
    "get_segmentor_lr_decay_rate",
]


def __getattr__(name: str) -> Any:
    if name == "SegmentationPredictor":  # not imported with the models: it needs what predictions need
        from convmae_seg.predictor import SegmentationPredictor

        return SegmentationPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
