"""As `convmae_base_mask_rcnn_FPN_25ep.py`, for 100 epochs. No result is published, and none is measured here."""

from lazyrun.config.schedule import COCO_TRAIN_IMAGES, cosine_schedule, iterations

from .convmae_base_mask_rcnn_FPN_25ep import data, dataloader, lr_multiplier, model, optimizer, train

train.max_iter = iterations(epochs=100, images=COCO_TRAIN_IMAGES, batch_size=32)
lr_multiplier = cosine_schedule(train.max_iter, warmup_iter=0.125 / 100 * train.max_iter)
