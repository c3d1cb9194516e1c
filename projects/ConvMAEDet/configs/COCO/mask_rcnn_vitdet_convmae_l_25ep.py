"""As `mask_rcnn_vitdet_convmae_b_25ep.py`, with ConvViT-L. Not published and not measured here."""

from functools import partial

from convmae_det import get_vit_lr_decay_rate

from .mask_rcnn_vitdet_convmae_b_25ep import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.net.update(
    embed_dim=(384, 768, 1024),
    depth=(2, 2, 23),
    num_heads=16,
    drop_path_rate=0.4,
    window_block_indexes=[i for i in range(23) if i not in (4, 10, 16, 22)],
)
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.8, num_layers=23)
