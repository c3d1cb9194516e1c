"""As `mask_rcnn_vitdet_convmae_b_25ep.py`, with ConvViT-H. Not published and not measured here."""

from functools import partial

from convmae_det import get_vit_lr_decay_rate

from .mask_rcnn_vitdet_convmae_b_25ep import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.net.update(
    embed_dim=(768, 1024, 1280),
    depth=(2, 2, 31),
    num_heads=16,
    drop_path_rate=0.5,
    window_block_indexes=[i for i in range(31) if i not in (6, 14, 22, 30)],
)
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.9, num_layers=31)
