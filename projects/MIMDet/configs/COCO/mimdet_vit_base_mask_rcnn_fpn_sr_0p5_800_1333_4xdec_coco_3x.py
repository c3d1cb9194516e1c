"""MIMDet with ViT-B, half of the tokens sampled, 36 epochs (arXiv:2204.02964).

    python tools/lazyconfig_train_net.py --num-gpus 8 \
        --config-file projects/MIMDet/configs/COCO/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.py \
        train.init_checkpoint=mae_pretrain_vit_base_full.pth

Box AP 51.5, mask AP 46.0 on COCO val2017 from MAE pretraining, encoder and decoder (published). Evaluation may sample
another share of the tokens: `model.backbone.bottom_up.sample_ratio=1.0`.
"""

from functools import partial

from detectron2.config import LazyCall as L

from lazyrun.config.schedule import iterations, multistep_schedule
from mimdet import ImageListRCNN, MIMDetBackbone, get_mimdet_lr_scale

from ....ConvMAEDet.configs.common.train import train
from ..common.coco_loader_multiscale import data, dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import optimizer

EPOCH_IMAGES = 120_000  # as published: 1875 iterations of 64 images

model._target_ = ImageListRCNN
model.backbone.bottom_up = L(MIMDetBackbone)(
    img_size=800,
    embed_dim=768,
    depth=12,
    num_heads=12,
    decoder_embed_dim=512,
    decoder_depth=4,
    decoder_num_heads=16,
    sample_ratio=0.5,
    drop_path_rate=0.0,
    use_act_checkpoint=False,
    out_features=["c2", "c3", "c4", "c5"],
)

dataloader.train.total_batch_size = 64

optimizer.params.weight_decay_bias = 0.0
optimizer.params.lr_factor_func = partial(get_mimdet_lr_scale, ratio=2.0)

train.amp.enabled = True
train.ddp.fp16_compression = True
train.max_iter = iterations(epochs=36, images=EPOCH_IMAGES, batch_size=64)
lr_multiplier = multistep_schedule(
    train.max_iter, warmup_iter=0.25 / 36 * train.max_iter, milestones=(27 / 36, 33 / 36), warmup_factor=0.0
)
