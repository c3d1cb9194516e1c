"""AdamW with layer-wise learning-rate decay, as in ViTDet and the ConvMAE detectors."""

from functools import partial

from detectron2 import model_zoo

from convmae_det import get_vit_lr_decay_rate

optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.params.overrides = {"pos_embed": {"weight_decay": 0.0}}
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.8, num_layers=11)
