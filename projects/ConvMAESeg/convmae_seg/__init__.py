"""UperNet on ConvMAE: semantic segmentation for detectron2."""

from convmae_seg import datasets as _register_datasets  # noqa: F401
