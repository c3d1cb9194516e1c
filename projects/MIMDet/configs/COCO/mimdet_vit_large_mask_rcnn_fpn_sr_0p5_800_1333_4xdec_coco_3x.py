"""As `mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.py`, with ViT-L.

Box AP 53.3, mask AP 47.5 on COCO val2017 (published).
"""

from functools import partial

from mimdet import get_mimdet_lr_scale

from .mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x import (
    data,
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.bottom_up.update(embed_dim=1024, depth=24, num_heads=16)
optimizer.params.lr_factor_func = partial(get_mimdet_lr_scale, ratio=3.5)
