"""The demo's detector: a tiny ConvViT Mask R-CNN on generated shapes, small enough to train on two CPU cores.

    python datasets/make_shapes.py datasets/shapes --size 64
    python tools/lazyconfig_train_net.py --num-gpus 0 \
        --config-file projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py
"""

from functools import partial

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from convmae_det import FusedConvViT, get_vit_lr_decay_rate
from lazyrun.config.schedule import multistep_schedule

from ..common.coco_loader_lsj import data, dataloader
from ..common.models.mask_rcnn_vitdet_convmae import model
from ..common.optim import optimizer
from ..common.train import train

data.image_size = 64

model.backbone.net.update(
    _target_=FusedConvViT,  # a short pretraining is in the sum of the stages, not in the last one alone
    patch_size=(4, 2, 1),  # stride 8: objects are 15 to 35 pixels wide
    embed_dim=(48, 96, 144),
    depth=(1, 2, 2),
    num_heads=4,
    drop_path_rate=0.0,
    window_size=4,  # of the 8×8 grid
    window_block_indexes=[0],
    pretrain_img_size=64,
)
# On a CPU the heads cost more than the backbone: two levels, few proposals, one sample a bin, small masks. Batch norm
# trains from scratch where layer norm needs a pretrained trunk: it takes out what all places of the map have in common.
channels = 64
model.backbone.update(out_channels=channels, scale_factors=(2.0, 1.0), top_block=None, norm="BN")
model.proposal_generator.update(
    in_features=["p3"], batch_size_per_image=32, pre_nms_topk=(150, 150), post_nms_topk=(50, 50)
)
model.proposal_generator.head.update(in_channels=channels, num_anchors=9, conv_dims=[-1])
model.proposal_generator.anchor_generator.update(sizes=[[16, 24, 32]], strides=[8])
model.roi_heads.update(
    num_classes=4, batch_size_per_image=16, positive_fraction=0.5, box_in_features=["p2"], mask_in_features=["p2"]
)
model.roi_heads.box_pooler.update(output_size=7, scales=[1.0 / 4], sampling_ratio=1)
model.roi_heads.box_head.update(
    input_shape=ShapeSpec(channels=channels, height=7, width=7), conv_dims=[channels], fc_dims=[256], conv_norm="BN"
)
model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=256)
model.roi_heads.mask_pooler.update(output_size=7, scales=[1.0 / 4], sampling_ratio=1)
model.roi_heads.mask_head.update(
    input_shape=ShapeSpec(channels=channels, height=7, width=7), conv_dims=[channels] * 3, conv_norm="BN"
)

dataloader.train.dataset.names = "shapes_train"
dataloader.train.update(total_batch_size=8, num_workers=0)
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomFlip)(horizontal=False, vertical=True),
    # The demo's images have this size already; photos are brought to it. Last, as it draws a random number.
    L(T.ResizeShortestEdge)(short_edge_length="${data.image_size}", max_size="${data.image_size}"),
]
dataloader.train.mapper.recompute_boxes = False
dataloader.test.dataset.names = "shapes_val"
dataloader.test.update(batch_size=10, num_workers=0)

optimizer.lr = 1e-3
optimizer.weight_decay = 0.05
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=1.0, num_layers=2)

train.device = "cpu"
train.output_dir = "output/shapes"
train.ddp.broadcast_buffers = True  # running statistics of batch norm
train.max_iter = 1200
train.eval_period = 600
train.checkpointer = dict(period=300, max_to_keep=2)
lr_multiplier = multistep_schedule(train.max_iter, warmup_iter=100)
