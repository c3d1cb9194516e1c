"""The optimizer of a config, in its fused form where the device has one."""

import inspect
from copy import deepcopy

import torch
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from lazyrun.engine.layer_decay import layer_decay_function
from pretrain.common.errors import UserError

__all__ = ["build_optimizer"]

FUSED_DEVICES = ("cpu", "cuda")


def build_optimizer(cfg: DictConfig, model: nn.Module, layer_decay: float | None = None) -> torch.optim.Optimizer:
    """Builds `cfg` for a model; `fused` and `foreach` left out or None mean fused, one pass over each parameter.

    Fused updates are those of the plain loop up to rounding. They also take the factor of loss scaling and skip a step
    whose gradients overflowed, without waiting for the GPU.

    Args:
        cfg: LazyConfig of an optimizer whose `params` take the model; it stays as it is.
        model: on its device, not wrapped.
        layer_decay: rate of the layer-wise learning rates, in place of the rate and depth in `cfg`.

    Returns:
        the optimizer. A state loaded into it later changes its moments, not its implementation.

    Raises:
        UserError: a number is out of its range, or the model has no layers for the layer-wise learning rates.
    """
    cfg = deepcopy(cfg)  # the run's config is read-only
    OmegaConf.set_readonly(cfg, False)
    cfg.params.model = model
    if layer_decay is not None:
        names = [name for name, _ in model.named_parameters()]
        cfg.params.lr_factor_func = layer_decay_function(cfg.params.lr_factor_func, layer_decay, names)
    target = locate(cfg._target_) if isinstance(cfg._target_, str) else cfg._target_
    devices = {p.device.type for p in model.parameters()}
    if (
        "fused" in inspect.signature(target).parameters
        and cfg.get("fused") is None
        and cfg.get("foreach") is None
        and devices <= set(FUSED_DEVICES)
    ):
        cfg.fused = True
    try:
        optimizer = instantiate(cfg)
    except (ValueError, TypeError) as e:
        raise UserError(f"The optimizer of this config cannot be built: {e}") from e
    for options in (optimizer.defaults, *optimizer.param_groups):  # torch.load refuses the config's own lists
        options.update({key: tuple(value) for key, value in options.items() if isinstance(value, ListConfig)})
    optimizer.register_load_state_dict_pre_hook(_keep_implementation)
    return optimizer


def _keep_implementation(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """PyTorch restores `fused` and `foreach` with the state, so a resumed run would update as the earlier one did.

    Raises:
        UserError: the state groups the parameters otherwise.
    """
    then, now = (
        [len(group["params"]) for group in groups] for groups in (state["param_groups"], optimizer.param_groups)
    )
    if then != now:
        raise UserError(
            f"The run to resume has its parameters in other groups of the optimizer ({len(then)}) than this config "
            f"({len(now)}); resume with the train.freeze, the train.layer_decay and the optimizer.params that it "
            "began with."
        )
    chosen = {key: optimizer.defaults[key] for key in ("fused", "foreach") if key in optimizer.defaults}
    return {**state, "param_groups": [{**group, **chosen} for group in state["param_groups"]]}
