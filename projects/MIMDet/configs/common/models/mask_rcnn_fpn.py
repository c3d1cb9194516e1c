"""Mask R-CNN on a feature pyramid network as in the MIMDet family: SyncBN, two RPN convolutions, a box head of four
convolutions and one linear layer. Each config sets its own `backbone.bottom_up`.
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from lazyrun.modeling.norms import PlainSyncBatchNorm, sync_batch_norm

constants = model_zoo.get_config("common/data/constants.py").constants

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
model.pixel_mean = constants.imagenet_rgb256_mean
model.pixel_std = constants.imagenet_rgb256_std
model.input_format = "RGB"
model.backbone.norm = sync_batch_norm
model.proposal_generator.head.conv_dims = [-1, -1]
# Heads may be without a single proposal on one process. detectron2's naiveSyncBN_N, as published, allows for that but
# not for bfloat16.
model.roi_heads.box_head.update(conv_dims=[256] * 4, fc_dims=[1024], conv_norm=PlainSyncBatchNorm)
model.roi_heads.mask_head.conv_norm = PlainSyncBatchNorm
