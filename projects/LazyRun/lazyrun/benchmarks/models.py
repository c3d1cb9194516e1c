"""The detectors that are measured: a config's with random weights, and other forms of it that share these."""

import copy
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from lazyrun.config.changes import UNFIT, reason_of
from pretrain.common.errors import UserError

__all__ = ["build_detector", "changed_net", "checkpointed", "net_of"]


def build_detector(cfg: DictConfig, size: int, device: torch.device) -> nn.Module:
    """The config's model for images of `size` pixels, randomly initialised with relative positions that are not zero.

    Raises:
        UserError: the config fixes the size without a `data.image_size`, or the size does not suit the model.
    """
    cfg = copy.deepcopy(cfg)
    if "image_size" in cfg.get("data", {}):
        cfg.data.image_size = size
    elif "img_size" in cfg.model.backbone.get("net", {}):
        raise UserError("The config has no data.image_size that --sizes could set; name a config of this project.")
    torch.manual_seed(0)
    try:
        model = instantiate(cfg.model).to(device)
    except UNFIT as e:
        raise UserError(f"The model cannot be built for {size} pixels: {reason_of(e)}") from e
    for name, p in model.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(p, std=0.02)
    return model


def net_of(model: Any) -> Any:
    """The transformer below a detector's pyramid."""
    return model.backbone.net if hasattr(model.backbone, "net") else model.backbone.bottom_up


def checkpointed(model: nn.Module) -> nn.Module:
    """A copy whose transformer recomputes all of its blocks; parameters and buffers are shared.

    Raises:
        UserError: the transformer has no `set_grad_checkpointing`.
    """
    model = changed_net(model)
    if not hasattr(net_of(model), "set_grad_checkpointing"):
        raise UserError(f"--act_checkpoint: {type(net_of(model)).__name__} has no activation checkpointing.")
    net_of(model).set_grad_checkpointing(True)
    return model


def changed_net(model: nn.Module, **attributes: Any) -> nn.Module:
    """A copy whose transformer has other attributes; parameters and buffers are shared."""
    model = copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})
    for name, value in attributes.items():
        setattr(net_of(model), name, value)
    return model
