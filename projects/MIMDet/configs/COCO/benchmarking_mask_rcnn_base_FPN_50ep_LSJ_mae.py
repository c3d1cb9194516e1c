"""As `benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae.py`, for 50 epochs: box AP 50.2, mask AP 44.9 (published)."""

from lazyrun.config.schedule import COCO_TRAIN_IMAGES, cosine_schedule, iterations

from .benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae import data, dataloader, lr_multiplier, model, optimizer, train

train.max_iter = iterations(epochs=50, images=COCO_TRAIN_IMAGES, batch_size=64)
lr_multiplier = cosine_schedule(train.max_iter, warmup_iter=0.25 / 50 * train.max_iter)
