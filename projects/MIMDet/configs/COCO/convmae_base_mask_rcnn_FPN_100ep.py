"""As `convmae_base_mask_rcnn_FPN_25ep.py`, for 100 epochs. No result is published, and none is measured here."""

from convmae_det.schedule import COCO_TRAIN_IMAGES, cosine_schedule, iterations

from .convmae_base_mask_rcnn_FPN_25ep import data, dataloader, lr_multiplier, model, optimizer, train

train.max_iter = iterations(epochs=100, images=COCO_TRAIN_IMAGES, batch_size=32)
lr_multiplier = cosine_schedule(epochs=100, warmup_epochs=0.125)
