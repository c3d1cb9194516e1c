"""Mask R-CNN with a plain ViT-B under a feature pyramid network, 100 epochs (Li et al., arXiv:2111.11429).

    python tools/lazyconfig_train_net.py --num-gpus 8 \
        --config-file projects/MIMDet/configs/COCO/benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae.py \
        train.init_checkpoint=mae_pretrain_vit_base.pth

Box AP 50.4, mask AP 44.9 on COCO val2017 from MAE pretraining (published). Drop path is the paper's.
"""

from functools import partial

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate

from lazyrun.config.schedule import COCO_TRAIN_IMAGES, cosine_schedule, iterations
from lazyrun.modeling.rcnn import PaddedRCNN
from mimdet import BenchmarkingViT

from ....ConvMAEDet.configs.common.train import train
from ..common.coco_loader_lsj_padded import data, dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import optimizer

model._target_ = PaddedRCNN
model.backbone.bottom_up = L(BenchmarkingViT)(
    img_size="${data.image_size}",
    patch_size=16,
    embed_dim=768,
    depth=12,
    num_heads=12,
    window_size=16,
    drop_path_rate=0.1,
    use_act_checkpoint=False,
    out_features=["s0", "s1", "s2", "s3"],
)

dataloader.train.total_batch_size = 64

# All learning rates are alike; train.layer_decay changes that.
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=1.0, num_layers=12)

train.amp.enabled = True
train.ddp.fp16_compression = True
train.max_iter = iterations(epochs=100, images=COCO_TRAIN_IMAGES, batch_size=64)
lr_multiplier = cosine_schedule(train.max_iter, warmup_iter=0.25 / 100 * train.max_iter)
