"""COCO at several scales; half of the images are cropped first (DETR's augmentation, arXiv:2005.12872)."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from ....ConvMAEDet.configs.common.coco_loader_lsj import dataloader

data = dict(
    train_short_edge=[480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    test_short_edge=800,
    max_size=1333,
)

dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomApply)(
        tfm_or_aug=L(T.AugmentationList)(
            augs=[
                L(T.ResizeShortestEdge)(short_edge_length=[400, 500, 600], sample_style="choice"),
                L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
            ]
        ),
        prob=0.5,
    ),
    L(T.ResizeShortestEdge)(
        short_edge_length="${data.train_short_edge}", max_size="${data.max_size}", sample_style="choice"
    ),
]
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length="${data.test_short_edge}", max_size="${data.max_size}")
]
