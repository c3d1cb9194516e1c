"""COCO with large-scale jitter (arXiv:2012.07177); `data.image_size` alone sets all sizes."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from lazyrun.data.loader import build_train_loader
from lazyrun.data.mapper import InstanceMapper
from lazyrun.evaluation.coco import COCOEvaluator

data = dict(
    image_size=1024,
    # Shorter and longest side of images for evaluation; alike, the longer side has this size and the rest is padding.
    test_short_side="${data.image_size}",
    test_max_size="${data.image_size}",
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.update(_target_=build_train_loader, total_batch_size=64, seed="${train.seed}")
dataloader.train.mapper.update(
    _target_=InstanceMapper,
    augmentations=[
        L(T.RandomFlip)(horizontal=True),
        L(T.ResizeScale)(
            min_scale=0.1, max_scale=2.0, target_height="${data.image_size}", target_width="${data.image_size}"
        ),
        L(T.FixedSizeCrop)(crop_size=["${data.image_size}", "${data.image_size}"], pad=False),
    ],
    image_format="RGB",
    recompute_boxes=True,  # cropping cuts objects
)
dataloader.test.mapper.update(
    _target_=InstanceMapper,
    augmentations=[
        L(T.ResizeShortestEdge)(short_edge_length="${data.test_short_side}", max_size="${data.test_max_size}"),
    ],
)
dataloader.evaluator.update(_target_=COCOEvaluator)
