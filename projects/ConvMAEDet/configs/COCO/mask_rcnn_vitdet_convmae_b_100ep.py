"""As `mask_rcnn_vitdet_convmae_b_25ep.py`, for 100 epochs. Not published and not measured here."""

from lazyrun.config.schedule import COCO_TRAIN_IMAGES, iterations, multistep_schedule

from .mask_rcnn_vitdet_convmae_b_25ep import data, dataloader, lr_multiplier, model, optimizer, train

train.max_iter = iterations(epochs=100, images=COCO_TRAIN_IMAGES, batch_size=16)
lr_multiplier = multistep_schedule(train.max_iter, warmup_iter=250)
