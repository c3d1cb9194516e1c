"""UperNet with ConvMAE-B on ADE20K, 160 000 iterations (ConvMAE, arXiv:2205.03892; UperNet, arXiv:1807.10221).

    python tools/lazyconfig_train_net.py --num-gpus 8 \
        --config-file projects/ConvMAESeg/configs/ADE20K/upernet_convmae_base_512_slide_160k.py \
        train.init_checkpoint=CONVMAE_BASE_CHECKPOINT

mIoU 51.7 on ADE20K's validation images at a single scale, from the 1600-epoch ConvMAE-B (published).
"""

from ..common.ade20k_loader import data, dataloader, task
from ..common.models.upernet_convmae import model
from ..common.optim import lr_multiplier, optimizer
from ..common.test import test
from ..common.train import train

dataloader.train.total_batch_size = 16

train.max_iter = 160_000
train.eval_period = 16_000
train.checkpointer.period = 16_000
