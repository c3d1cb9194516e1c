"""Semantic segmentation for detectron2: UperNet on ConvMAE's ConvViT."""

from convmae_seg import datasets as _register_datasets  # noqa: F401
from convmae_seg.backbone import ConvViTSeg
from convmae_seg.lr_decay import get_segmentor_lr_decay_rate
from convmae_seg.predictor import SegmentationPredictor
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
