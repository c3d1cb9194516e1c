"""ViTDet Mask R-CNN with ConvMAE-B, 25 epochs (ConvMAE, arXiv:2205.03892; ViTDet, arXiv:2203.16527).

    python tools/lazyconfig_train_net.py --num-gpus 8 \
        --config-file projects/ConvMAEDet/configs/COCO/mask_rcnn_vitdet_convmae_b_25ep.py \
        train.init_checkpoint=CONVMAE_BASE_CHECKPOINT

Box AP 53.9, mask AP 47.6 on COCO val2017 from the 1600-epoch ConvMAE-B (published).
"""

from lazyrun.config.schedule import COCO_TRAIN_IMAGES, iterations, multistep_schedule

from ..common.coco_loader_lsj import data, dataloader
from ..common.models.mask_rcnn_vitdet_convmae import model
from ..common.optim import optimizer
from ..common.train import train

dataloader.train.total_batch_size = 16

train.amp.enabled = True
train.ddp.fp16_compression = True
train.max_iter = iterations(epochs=25, images=COCO_TRAIN_IMAGES, batch_size=16)
lr_multiplier = multistep_schedule(train.max_iter, warmup_iter=250)
