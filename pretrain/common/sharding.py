"""Weights, gradients and moments shared out over the processes of a run, by PyTorch's `fully_shard`.

Each process keeps its slices of every parameter. A unit's weights, such as those of a block, are gathered when it runs
and let go after it, in the forward and in the backward pass; its gradients are averaged and sliced as soon as they are
there. So a process needs `1 / processes` of the 16 bytes a parameter that AdamW takes in float32, one or two whole
units, what is in no unit, and the activations.

Weights are gathered in float32 and autocast is what lowers the precision, as it is without sharing.

All processes have to call these at the same time, as each gives its slices: :func:`shard`, :func:`whole_weights`,
:func:`full_weights`, :func:`full_tensor` and :func:`whole_content`. Within :func:`whole_weights` nothing is shared out,
so one process alone may call :func:`full_weights` there. The other functions send nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pretrain.common.errors import UserError

__all__ = [
    "check_can_shard",
    "full_tensor",
    "full_weights",
    "is_sharded",
    "shard",
    "sliced_as",
    "sliced_moments",
    "whole_content",
    "whole_weights",
]


def check_can_shard(option: str) -> None:
    """Raises UserError, which names the option that asks for it, if this PyTorch cannot share out weights."""
    if not hasattr(FSDPModule, "reset_iter_state"):
        raise UserError(
            f"{option} needs PyTorch 2.13 or newer, and this is {torch.__version__}; update it, or leave out {option}."
        )


def shard(
    module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, units: Iterable[nn.Module]
) -> None:
    """Shares out the parameters of a module, unit by unit, and has the optimizer update the slices.

    Parameters begin as those of the first process, which have to fit its device once.

    Args:
        module: called to run the model, as it gathers what is in no unit.
        optimizer: of any of its parameters; has not taken a step yet.
        units: modules within it, none within another, which every process runs in every forward pass.
    """
    with torch.no_grad():
        for tensor in chain(module.parameters(), module.buffers()):
            # fully_shard takes no other layout, and the convolutions of pretraining are channels-last.
            tensor.data = tensor.data.contiguous()
            dist.broadcast(tensor, src=0)
    names = {parameter: name for name, parameter in module.named_parameters()}
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(module, mesh=mesh)
    slices = dict(module.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [slices[names[parameter]] for parameter in group["params"]]


def is_sharded(module: nn.Module) -> bool:
    """Whether :func:`shard` shared out this module."""
    return isinstance(module, FSDPModule)


@contextmanager
def whole_weights(module: nn.Module) -> Iterator[None]:
    """Every process has all weights within, so that each may run the model as often as it likes, or not at all.

    For evaluations. Do not call `state_dict` within, which slices the weights again; take :func:`full_weights`.
    """
    if not isinstance(module, FSDPModule):
        yield
        return
    # PyTorch takes whichever module runs first for the outermost one, and an evaluation may run a part of the model.
    module._get_fsdp_state()._lazy_init()
    modules = [part for part in module.modules() if isinstance(part, FSDPModule)]
    module.set_reshard_after_forward(False)
    for part in modules:
        part.unshard()
    try:
        yield
    finally:
        for part in modules:
            part.reshard()
        # The order of the blocks that ran, by which weights are fetched ahead, differs among the processes.
        module.reset_iter_state()
        module.set_reshard_after_forward(True)
        module.set_reshard_after_forward(False, recurse=False)  # the backward pass begins with what is in no unit


@torch.no_grad()
def full_weights(model: nn.Module, kept: bool = True) -> dict[str, torch.Tensor]:
    """The weights by name; those that are shared out are brought together on the CPU. Called in every process.

    Args:
        kept: whether this process needs them, or only gives its slices.
    """
    if not any(isinstance(module, FSDPModule) for module in model.modules()):
        return model.state_dict()
    tensors = ((name, full_tensor(t.detach())) for name, t in chain(model.named_parameters(), model.named_buffers()))
    return {name: tensor.cpu() for name, tensor in tensors if kept}


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that is shared out, brought together, or any other as it is. Called in every process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def whole_content(content: Any, kept: bool) -> Any:
    """What a checkpoint is to hold, with the tensors that are shared out brought together on the CPU, one at a time.

    Called in every process, with as many of these in the same order.

    Args:
        content: tensors and anything else, in dictionaries, lists and tuples.
        kept: whether this process needs it, or only gives its slices.
    """
    if isinstance(content, DTensor):
        tensor = content.full_tensor()
        return tensor.cpu() if kept else None
    if isinstance(content, dict):
        whole = copy(content)  # with what PyTorch notes of the versions of layers
        whole.update({key: whole_content(value, kept) for key, value in content.items()})
        return whole
    if isinstance(content, list | tuple):
        return type(content)(whole_content(value, kept) for value in content)
    return content


def sliced_as(tensor: Any, owner: Any) -> Any:
    """This process's slice of a whole tensor of a checkpoint, cut as its parameter is.

    Every process has read the whole tensor, so nothing is sent. What is no tensor of the parameter's shape, or belongs
    to a parameter that is not shared out, stays as it is.
    """
    if not (isinstance(owner, DTensor) and isinstance(tensor, torch.Tensor) and owner.shape == tensor.shape):
        return tensor
    return distribute_tensor(tensor, owner.device_mesh, owner.placements, src_data_rank=None)


def sliced_moments(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state of whole tensors, with the slices of them that belong to this process's parameters."""
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    moments = {
        index: {name: sliced_as(value, parameters.get(index)) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": moments}
