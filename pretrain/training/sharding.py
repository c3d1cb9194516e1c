"""Training with weights, gradients and moments shared out over the processes, by PyTorch's `fully_shard` (`--fsdp`).

Each process keeps its slices of every parameter. A block's weights are gathered when it runs and let go after it, in
the forward and in the backward pass; its gradients are averaged and sliced as soon as they are there. So a process
needs `1 / processes` of the 16 bytes a parameter that AdamW takes in float32, one or two whole blocks, and the
activations.

Weights are gathered in float32 and autocast is what lowers the precision, as it is without `--fsdp`: a policy of
`fully_shard` that gathered them in bfloat16 could not be lifted for the steps that are repeated in float32
(:mod:`pretrain.training.step`).
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.sharded_files import read_tensors, sliced_tensors, with_tensors
from pretrain.models.layers import Block, ConvBlock

__all__ = ["filled_state", "full_tensor", "full_weights", "shard", "shards_weights", "whole_weights"]


def shards_weights(args: argparse.Namespace, world: World) -> bool:
    """Whether a run shares out its weights: `--fsdp` with several processes.

    Raises:
        UserError: this PyTorch cannot do it.
    """
    if not getattr(args, "fsdp", False) or world.size == 1:  # other commands do not have the option
        return False
    if not hasattr(FSDPModule, "reset_iter_state"):
        raise UserError(f"--fsdp needs a newer PyTorch than {torch.__version__}; update it, or leave out --fsdp.")
    return True


def shard(loss: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Shares out the parameters of the loss's model, block by block, and has the optimizer update the slices.

    Parameters begin as those of the first process, which have to fit its device once.

    Args:
        loss: what is trained; called to run the model, as it gathers what is in no block.
        optimizer: of any of its parameters; has not taken a step yet.
    """
    with torch.no_grad():
        for tensor in chain(loss.parameters(), loss.buffers()):
            # fully_shard takes no other layout, and the convolutions of pretraining are channels-last.
            tensor.data = tensor.data.contiguous()
            dist.broadcast(tensor, src=0)
    names = {parameter: name for name, parameter in loss.named_parameters()}
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in [m for m in loss.modules() if isinstance(m, Block | ConvBlock)]:
        fully_shard(module, mesh=mesh)
    fully_shard(loss, mesh=mesh)
    slices = dict(loss.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [slices[names[parameter]] for parameter in group["params"]]


@contextmanager
def whole_weights(loss: nn.Module) -> Iterator[None]:
    """Every process has all weights within, so that each may run the model as often as it likes, or not at all.

    For evaluations, after the first step. Do not call `state_dict` within, which slices the weights again; take
    :func:`full_weights`.
    """
    if not isinstance(loss, FSDPModule):
        yield
        return
    modules = [module for module in loss.modules() if isinstance(module, FSDPModule)]
    loss.set_reshard_after_forward(False)
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
        # The order of the blocks that ran, by which weights are fetched ahead, differs among the processes.
        loss.reset_iter_state()
        loss.set_reshard_after_forward(True)
        loss.set_reshard_after_forward(False, recurse=False)  # the backward pass begins with what is in no block


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
def filled_state(
    state: Mapping[str, Any], path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """The state of a checkpoint with its tensors as model and optimizer have them, in slices or whole.

    Args:
        state: as :func:`pretrain.training.checkpoint_files.load_unfilled` reads it from `path`.

    Raises:
        OSError: the checkpoint cannot be read.
    """
    stored = sliced_tensors(state)
    owners = _owners(stored, model, optimizer)
    if not path.is_dir():
        # Each process has read the whole tensors and takes its slices, so nothing is sent.
        slices = {
            name: distribute_tensor(stored[name], owner.device_mesh, owner.placements, src_data_rank=None)
            for name, owner in owners.items()
        }
        return with_tensors(state, stored | slices)
    tensors = {
        name: torch.empty_like(owners[name]) if name in owners else torch.empty_like(tensor, device="cpu")
        for name, tensor in stored.items()
    }
    read_tensors(path, tensors, together=bool(owners))
    return with_tensors(state, tensors)


def _owners(
    stored: Mapping[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, DTensor]:
    """The parameters whose weights or moments the tensors of a checkpoint are, where these are shared out."""
    weights = dict(model.named_parameters())
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    owners = {}
    for name, tensor in stored.items():
        part, _, rest = name.partition(".")
        owner = weights.get(rest) if part == "model" else parameters.get(int(rest.partition(".")[0]))
        if isinstance(owner, DTensor) and owner.shape == tensor.shape:
            owners[name] = owner
    return owners
