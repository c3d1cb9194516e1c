"""The baseline: ViTDet Mask R-CNN with a plain ViT-B, 100 epochs (arXiv:2203.16527), detectron2's own model.

    python tools/lazyconfig_train_net.py --num-gpus 64 --num-machines 8 ... \
        --config-file projects/ConvMAEDet/configs/COCO/mask_rcnn_vitdet_b_100ep.py

Box AP 51.6, mask AP 45.9 on COCO val2017 from MAE pretraining, 64 images a batch (published).
"""

from functools import partial

from detectron2 import model_zoo
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate

from convmae_det.pyramid import FeaturePyramid
from lazyrun.config.schedule import COCO_TRAIN_IMAGES, iterations, multistep_schedule

from ..common.coco_loader_lsj import data, dataloader
from ..common.optim import optimizer
from ..common.train import train

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
model.backbone._target_ = FeaturePyramid
model.backbone.net.img_size = model.backbone.square_pad = "${data.image_size}"

dataloader.train.total_batch_size = 64

train.amp.enabled = True
train.ddp.fp16_compression = True
train.init_checkpoint = "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_base.pth?matching_heuristics=True"
train.max_iter = iterations(epochs=100, images=COCO_TRAIN_IMAGES, batch_size=64)
lr_multiplier = multistep_schedule(train.max_iter, warmup_iter=250)
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.7, num_layers=12)
