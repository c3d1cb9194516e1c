"""The demo's detector: a tiny ConvViT Mask R-CNN on generated shapes, small enough to train on two CPU cores.

    python datasets/make_shapes.py datasets/shapes
    tools/lazyconfig_train_net.py --num-gpus 0 \
        --config-file projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py
"""

from functools import partial

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from convmae_det import get_vit_lr_decay_rate
from convmae_det.schedule import multistep_schedule

from ..common.coco_loader_lsj import data, dataloader
from ..common.models.mask_rcnn_vitdet_convmae import model
from ..common.optim import optimizer
from ..common.train import train

data.image_size = 128

model.backbone.net.update(
    embed_dim=(48, 96, 192),
    depth=(1, 1, 4),
    num_heads=4,
    drop_path_rate=0.0,
    window_block_indexes=[],  # the grid is 8×8: every block attends globally
    pretrain_img_size=128,
)
channels = 64
model.backbone.out_channels = channels
model.proposal_generator.update(
    batch_size_per_image=64,
    pre_nms_topk=(300, 200),
    post_nms_topk=(150, 100),
)
model.proposal_generator.head.update(in_channels=channels, conv_dims=[-1])
model.proposal_generator.anchor_generator.sizes = [[12], [24], [48], [72], [96]]
model.roi_heads.num_classes = 5
model.roi_heads.batch_size_per_image = 32
model.roi_heads.box_head.update(
    input_shape=ShapeSpec(channels=channels, height=7, width=7), conv_dims=[channels], fc_dims=[256]
)
model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=256)
model.roi_heads.mask_head.update(
    input_shape=ShapeSpec(channels=channels, height=14, width=14), conv_dims=[channels, channels, channels]
)

dataloader.train.dataset.names = "shapes_train"
dataloader.train.update(total_batch_size=16, num_workers=1)
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomFlip)(horizontal=False, vertical=True),
]
dataloader.train.mapper.recompute_boxes = False
dataloader.test.dataset.names = "shapes_val"
dataloader.test.update(batch_size=10, num_workers=1)

optimizer.lr = 1e-3
optimizer.weight_decay = 0.05
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=1.0, num_layers=4)

train.device = "cpu"
train.output_dir = "output/shapes"
train.max_iter = 1200
train.eval_period = 600
train.checkpointer = dict(period=300, max_to_keep=2)
lr_multiplier = multistep_schedule(train.max_iter, warmup_iter=100)
