"""COCO with large-scale jitter (arXiv:2012.07177), with images padded to squares in training and evaluation."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from ....ConvMAEDet.configs.common.coco_loader_lsj import data, dataloader

dataloader.train.mapper.augmentations[-1].pad = True
dataloader.test.mapper.augmentations.append(
    L(T.FixedSizeCrop)(crop_size=["${data.image_size}", "${data.image_size}"], pad=True)
)
