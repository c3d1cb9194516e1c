"""The demo's detector: a tiny ConvViT Mask R-CNN on generated shapes, small enough to train on two CPU cores.

    python datasets/make_shapes.py datasets/shapes --size 96
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

data.image_size = 96

model.backbone.net.update(
    patch_size=(4, 2, 1),  # stride 8: objects are small
    embed_dim=(48, 96, 144),
    depth=(1, 1, 3),
    num_heads=4,
    drop_path_rate=0.0,
    window_block_indexes=[],  # the grid is 12×12: every block attends globally
    pretrain_img_size=96,
)
# On a CPU the heads cost more than the backbone: few proposals, one sample a bin, small masks.
channels = 64
levels = ["p2", "p3", "p4"]
scales = (1.0 / 4, 1.0 / 8, 1.0 / 16)
model.backbone.update(out_channels=channels, scale_factors=(2.0, 1.0, 0.5), top_block=None)
model.proposal_generator.update(
    in_features=levels, batch_size_per_image=64, pre_nms_topk=(300, 200), post_nms_topk=(100, 60)
)
model.proposal_generator.head.update(in_channels=channels, conv_dims=[-1])
model.proposal_generator.anchor_generator.update(sizes=[[20], [32], [48]], strides=[4, 8, 16])
model.roi_heads.update(num_classes=5, batch_size_per_image=32, box_in_features=levels, mask_in_features=levels)
model.roi_heads.box_pooler.update(output_size=7, scales=scales, sampling_ratio=1)
model.roi_heads.box_head.update(
    input_shape=ShapeSpec(channels=channels, height=7, width=7), conv_dims=[], fc_dims=[256]
)
model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=256)
model.roi_heads.mask_pooler.update(output_size=7, scales=scales, sampling_ratio=1)
model.roi_heads.mask_head.update(
    input_shape=ShapeSpec(channels=channels, height=7, width=7), conv_dims=[channels, channels, channels]
)

dataloader.train.dataset.names = "shapes_train"
dataloader.train.update(total_batch_size=8, num_workers=1)
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomFlip)(horizontal=False, vertical=True),
]
dataloader.train.mapper.recompute_boxes = False
dataloader.test.dataset.names = "shapes_val"
dataloader.test.update(batch_size=10, num_workers=1)

optimizer.lr = 1e-3
optimizer.weight_decay = 0.05
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=1.0, num_layers=3)

train.device = "cpu"
train.output_dir = "output/shapes"
train.max_iter = 1200
train.eval_period = 600
train.checkpointer = dict(period=300, max_to_keep=2)
lr_multiplier = multistep_schedule(train.max_iter, warmup_iter=100)
