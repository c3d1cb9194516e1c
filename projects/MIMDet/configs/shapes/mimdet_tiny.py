"""A tiny MIMDet on the demo's generated shapes, trained from scratch on a CPU.

python datasets/make_shapes.py datasets/shapes --size 64
python tools/lazyconfig_train_net.py --num-gpus 0 --config-file projects/MIMDet/configs/shapes/mimdet_tiny.py
"""

from functools import partial

from detectron2.config import LazyCall as L
from detectron2.modeling import FPN

from mimdet import ImageListRCNN, MIMDetBackbone, get_mimdet_lr_scale

from ....ConvMAEDet.configs.shapes.mask_rcnn_vitdet_convmae_tiny import (
    channels,
    data,
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model._target_ = ImageListRCNN
model.backbone = L(FPN)(
    bottom_up=L(MIMDetBackbone)(
        img_size=64,
        embed_dim=128,
        depth=4,
        num_heads=4,
        decoder_embed_dim=96,
        decoder_depth=2,
        decoder_num_heads=4,
        sample_ratio=0.5,
        out_features=["c2", "c3", "c4", "c5"],
    ),
    in_features="${.bottom_up.out_features}",
    out_channels=channels,
    norm="BN",
)

optimizer.params.lr_factor_func = partial(get_mimdet_lr_scale, ratio=1.0)  # nothing is pretrained
train.ddp.find_unused_parameters = True  # the heads take two levels of the pyramid
train.output_dir = "output/shapes_mimdet"
