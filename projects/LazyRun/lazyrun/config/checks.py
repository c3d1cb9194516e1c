"""Options of a run whose values are known before anything is built."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from pretrain.common.errors import UserError

__all__ = ["WRITERS", "check_loaders", "check_precision", "check_seed", "check_writers"]

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
