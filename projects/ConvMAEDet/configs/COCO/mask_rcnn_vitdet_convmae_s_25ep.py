"""As `mask_rcnn_vitdet_convmae_b_25ep.py`, with ConvViT-S. Not published and not measured here."""

from functools import partial

from convmae_det import get_vit_lr_decay_rate

from .mask_rcnn_vitdet_convmae_b_25ep import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.net.update(
    embed_dim=(128, 256, 384),
    depth=(2, 2, 11),
    num_heads=6,
    drop_path_rate=0.1,
    window_block_indexes=[0, 2, 3, 5, 6, 8, 9],  # global attention in 1, 4, 7, 10
)
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.8, num_layers=11)
