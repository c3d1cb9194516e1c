"""Options of a run whose values are known before anything is built."""

import inspect
import math
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from pretrain.common.errors import UserError

__all__ = [
    "WRITERS",
    "check_fsdp",
    "check_layer_decay",
    "check_loaders",
    "check_precision",
    "check_seed",
    "check_weight_options",
    "check_writers",
]

WRITERS = ("console", "json", "tensorboard", "wandb")
"""What `train.writers` may name, in the order in which they write."""


LEAST = {"dataloader.train.num_workers": 0, "dataloader.test.num_workers": 0, "dataloader.test.batch_size": 1}
"""Numbers of the loaders, and the least that each may be."""


def check_writers(names: Sequence[str]) -> None:
    """Raises UserError unless every name is a writer's, and what it needs is installed."""
    unknown = [name for name in names if name not in WRITERS]
    if unknown:
        raise UserError(f"train.writers: {unknown[0]!r} is none of {', '.join(WRITERS)}.")
    if "wandb" in names:
        try:
            import wandb  # noqa: F401
        except ImportError as e:
            raise UserError("train.writers names wandb, which is not installed: pip install -e '.[wandb]'") from e


def check_loaders(cfg: DictConfig) -> None:
    """Raises UserError unless the loaders' numbers of workers and of test images are whole and large enough."""
    for key, least in LEAST.items():
        value = OmegaConf.select(cfg, key, default=least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key}={value} must be a whole number, at least {least}.")


def check_seed(cfg: DictConfig) -> None:
    """Raises UserError unless `train.seed` is a whole number of up to 63 bits; a negative one seeds nothing."""
    seed = cfg.train.seed
    if not isinstance(seed, int) or isinstance(seed, bool) or seed >= 2**63:
        raise UserError(f"train.seed={seed} must be a whole number below 2**63; a negative one seeds nothing.")


def check_precision(cfg: DictConfig) -> None:
    """Raises UserError unless `train.amp.dtype` is a precision of autocast."""
    if cfg.train.amp.dtype not in ("float16", "bfloat16"):
        raise UserError(f"train.amp.dtype={cfg.train.amp.dtype} is neither float16 nor bfloat16.")


def check_fsdp(cfg: DictConfig) -> None:
    """Raises UserError unless `train.fsdp` is true or false, and goes with the other options."""
    fsdp = cfg.train.fsdp
    if not isinstance(fsdp, bool):
        raise UserError(f"train.fsdp={fsdp} is neither true nor false.")
    if fsdp and cfg.train.compile:
        raise UserError(f"train.fsdp does not go with train.compile={cfg.train.compile}; leave out one of them.")
    if fsdp and cfg.train.ema.decay is not None:
        raise UserError(
            f"train.fsdp does not go with train.ema.decay={cfg.train.ema.decay}, which averages whole weights; leave "
            "out one of them."
        )


def check_layer_decay(cfg: DictConfig) -> None:
    """Raises UserError unless `train.layer_decay` is a rate that the config's learning rates can be computed with."""
    rate = cfg.train.layer_decay
    if rate is None:
        return
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate <= 1:
        raise UserError(f"train.layer_decay={rate} must be a number above 0 and at most 1, or null.")
    factor = (cfg.optimizer.get("params") or {}).get("lr_factor_func")
    if factor is None:
        raise UserError(
            f"train.layer_decay={rate}: this config has no optimizer.params.lr_factor_func, which tells the layers of "
            "its model."
        )
    if not {"lr_decay_rate", "num_layers"} <= inspect.signature(factor).parameters.keys():
        name = getattr(getattr(factor, "func", factor), "__name__", factor)
        raise UserError(
            f"train.layer_decay={rate}: the learning rates of this config's model do not go by layers; {name}, its "
            "optimizer.params.lr_factor_func, has no lr_decay_rate and num_layers."
        )


def check_weight_options(cfg: DictConfig) -> None:
    """Raises UserError unless `train.ema.decay` and `train.clip_grad` are numbers in their ranges, or None."""
    decay, clip = cfg.train.ema.decay, cfg.train.clip_grad
    if decay is not None and not (_is_number(decay) and 0 <= decay < 1):
        raise UserError(f"train.ema.decay={decay} must be at least 0 and below 1, such as 0.999; null: no average.")
    if clip is not None and not (_is_number(clip) and 0 < clip < math.inf):
        raise UserError(f"train.clip_grad={clip} must be a norm above 0; null clips nothing.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
