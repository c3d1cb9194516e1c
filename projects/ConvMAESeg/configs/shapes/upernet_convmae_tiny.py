"""A tiny UperNet for the demo's generated shapes, trained from scratch on a CPU, to try out commands and data.

    python datasets/make_shapes.py datasets/shapes --size 64
    python tools/lazyconfig_train_net.py --num-gpus 0 \
        --config-file projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py
"""

from functools import partial

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from convmae_seg import get_segmentor_lr_decay_rate
from convmae_seg.augmentation import ResizeKeepRatio
from lazyrun.config.schedule import linear_schedule
from lazyrun.modeling.norms import grid_batch_norm

from ..common.ade20k_loader import data, dataloader, task
from ..common.models.upernet_convmae import model
from ..common.optim import optimizer
from ..common.test import test
from ..common.train import train

data.image_size = 64

model.num_classes = 5
model.backbone.update(
    patch_size=(4, 2, 1),  # stride 8: objects are 15 to 35 pixels wide
    embed_dim=(48, 64, 64),
    depth=(1, 1, 1),
    num_heads=4,
    mlp_ratio=2,
    drop_path_rate=0.0,
    norm_layer=grid_batch_norm,  # from random weights it learns faster than LayerNorm
)
model.decode_head.update(channels=64, dropout=0.0)
model.auxiliary_head.update(channels=16, dropout=0.0)
model.inference.window_batch_size = 8

dataloader.train.dataset.names = "shapes_sem_seg_train"
dataloader.train.update(total_batch_size=16, num_workers=0)  # a worker takes cores away, and handing over costs too
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomFlip)(horizontal=False, vertical=True),
    # The demo's images have this size already; photos are brought to it. Last, as the crop draws random numbers.
    L(ResizeKeepRatio)(short_edge="${data.image_size}", aspect=4, enlarge=False),
    L(T.RandomCrop)(crop_type="absolute", crop_size=["${data.image_size}", "${data.image_size}"]),
]
dataloader.test.dataset.names = "shapes_sem_seg_val"
dataloader.test.num_workers = 0

optimizer.lr = 6e-3
optimizer.params.lr_factor_func = partial(get_segmentor_lr_decay_rate, lr_decay_rate=1.0, num_layers=1)

train.device = "cpu"
train.output_dir = "output/shapes_seg"
train.ddp.broadcast_buffers = True  # running statistics of batch norm
train.max_iter = 1400
train.eval_period = 1400
train.checkpointer = dict(period=700, max_to_keep=2)
lr_multiplier = linear_schedule(train.max_iter, warmup_iter=30)
