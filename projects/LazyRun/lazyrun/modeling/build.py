"""From a config to its model."""

from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from lazyrun.config.changes import UNFIT
from lazyrun.data.padding import refuse_cut_off
from pretrain.common.commands import is_out_of_memory
from pretrain.common.errors import UserError

__all__ = ["build_model"]


def build_model(cfg: DictConfig) -> nn.Module:
    """The model of a config, as initialised, on the CPU.

    Raises:
        UserError: its numbers do not fit together.
    """
    image_size = cfg.get("data", {}).get("image_size", 1)
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1:
        raise UserError(f"data.image_size={image_size} must be a whole number of pixels, at least 1.")
    try:
        model = instantiate(cfg.model)
    except UNFIT as e:
        if is_out_of_memory(e):
            raise
        size = f" for data.image_size={cfg.data.image_size}" if "image_size" in cfg.get("data", {}) else ""
        raise UserError(f"The model of this config cannot be built{size}: {e}") from e
    if hasattr(model, "backbone"):
        model.register_forward_pre_hook(refuse_cut_off)
    return model
