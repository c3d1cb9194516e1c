"""Training with shared-out weights (`--fsdp`): :mod:`pretrain.common.sharding` block by block, and its checkpoints.

That weights are gathered in float32, and autocast is what lowers the precision, matters here: a policy of `fully_shard`
that gathered them in bfloat16 could not be lifted for the steps that are repeated in float32
(:mod:`pretrain.training.step`).
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from pretrain.common.distributed import World
from pretrain.common.sharded_files import read_tensors, sliced_tensors, with_tensors
from pretrain.common.sharding import check_can_shard, shard, sliced_as
from pretrain.models.layers import Block, ConvBlock

__all__ = ["blocks_of", "filled_state", "shard_blocks", "shards_weights"]


def shards_weights(args: argparse.Namespace, world: World) -> bool:
    """Whether a run shares out its weights: `--fsdp` with several processes.

    Raises:
        UserError: this PyTorch cannot do it.
    """
    if not getattr(args, "fsdp", False) or world.size == 1:  # other commands do not have the option
        return False
    check_can_shard("--fsdp")
    return True


def shard_blocks(loss: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Shares out the parameters of the loss's model, block by block; see :func:`pretrain.common.sharding.shard`."""
    shard(loss, optimizer, device, blocks_of(loss))


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The modules whose weights are gathered one at a time."""
    return [module for module in model.modules() if isinstance(module, Block | ConvBlock)]


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
        return with_tensors(state, {name: sliced_as(tensor, owners.get(name)) for name, tensor in stored.items()})
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
