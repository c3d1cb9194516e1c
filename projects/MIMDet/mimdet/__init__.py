"""MIMDet and the Benchmarking ViT: Mask R-CNN detectors with masked-image-modelling ViTs under a feature pyramid."""

from mimdet.benchmarking_vit import BenchmarkingViT
from mimdet.lr_scale import get_mimdet_lr_scale
from mimdet.mimdet_backbone import MIMDetBackbone
from mimdet.rcnn import ImageListRCNN

__all__ = ["BenchmarkingViT", "ImageListRCNN", "MIMDetBackbone", "get_mimdet_lr_scale"]
