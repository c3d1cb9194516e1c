"""Mask R-CNN with ConvMAE-B's ConvViT under a feature pyramid network, 25 epochs (arXiv:2205.03892).

    python tools/lazyconfig_train_net.py --num-gpus 8 \
        --config-file projects/MIMDet/configs/COCO/convmae_base_mask_rcnn_FPN_25ep.py \
        train.init_checkpoint=convmae_base.pth

Box AP 53.2, mask AP 47.1 on COCO val2017 from ConvMAE pretraining (published). Drop path is that of the ViTDet recipe.
"""

from functools import partial

from detectron2.config import LazyCall as L

from convmae_det import ConvViTFPN, get_vit_lr_decay_rate
from lazyrun.config.schedule import COCO_TRAIN_IMAGES, cosine_schedule, iterations
from lazyrun.modeling.rcnn import PaddedRCNN

from ....ConvMAEDet.configs.common.train import train
from ..common.coco_loader_lsj_padded import data, dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import optimizer

model._target_ = PaddedRCNN
model.backbone.bottom_up = L(ConvViTFPN)(
    img_size="${data.image_size}",
    patch_size=(4, 2, 2),
    embed_dim=(256, 384, 768),
    depth=(2, 2, 11),
    num_heads=12,
    window_size=16,
    global_block_indexes=[0, 3, 6, 10],
    drop_path_rate=0.1,
    use_act_checkpoint=False,
    out_features=["s0", "s1", "s2", "s3"],
)

dataloader.train.total_batch_size = 32

# All learning rates are alike; train.layer_decay changes that.
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=1.0, num_layers=11)

train.amp.enabled = True
train.ddp.fp16_compression = True
train.max_iter = iterations(epochs=25, images=COCO_TRAIN_IMAGES, batch_size=32)
lr_multiplier = cosine_schedule(train.max_iter, warmup_iter=4 * 0.125 / 25 * train.max_iter)
