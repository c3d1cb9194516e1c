"""As `benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae.py`, for 25 epochs: box AP 48.0, mask AP 43.0 (published)."""

from lazyrun.config.schedule import COCO_TRAIN_IMAGES, cosine_schedule, iterations

from .benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae import data, dataloader, lr_multiplier, model, optimizer, train

train.max_iter = iterations(epochs=25, images=COCO_TRAIN_IMAGES, batch_size=64)
lr_multiplier = cosine_schedule(train.max_iter, warmup_iter=0.25 / 25 * train.max_iter)
