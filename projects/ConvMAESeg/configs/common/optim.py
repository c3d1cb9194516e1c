"""AdamW with layer-wise learning-rate decay and a linear schedule, as for the published segmentation models."""

from functools import partial

from detectron2 import model_zoo

from convmae_seg import get_segmentor_lr_decay_rate
from lazyrun.config.schedule import linear_schedule

optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.lr = 1e-4
optimizer.weight_decay = 0.05
# none on what is one-dimensional
optimizer.params.overrides = {name: {"weight_decay": 0.0} for name in ("bias", "gamma_1", "gamma_2")}
optimizer.params.lr_factor_func = partial(get_segmentor_lr_decay_rate, lr_decay_rate=0.75, num_layers=11)

lr_multiplier = linear_schedule(max_iter=160_000, warmup_iter=1500)
