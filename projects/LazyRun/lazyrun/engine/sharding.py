"""`train.fsdp`: a training whose processes share out weights, gradients and moments, block by block of the backbone."""

import logging
from typing import cast

import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn
from torch.distributed.fsdp import FSDPModule

from pretrain.common.errors import UserError
from pretrain.common.sharding import check_can_shard, shard

__all__ = ["blocks_of", "check_same_checkpoint", "shard_model", "shards_weights", "units_of"]

logger = logging.getLogger(__name__)


def shards_weights(cfg: DictConfig) -> bool:
    """Whether a run shares out its weights: `train.fsdp` with several processes.

    Raises:
        UserError: this PyTorch cannot do it.
    """
    if not cfg.train.fsdp:
        return False
    if comm.get_world_size() == 1:
        logger.info("train.fsdp: one process has nothing to share out.")
        return False
    check_can_shard("train.fsdp")
    return True


def shard_model(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Shares out a model over all processes, and has the optimizer update the slices.

    The units are the blocks of the backbone, which every process runs in every pass. The heads run on what is found,
    which may be nothing in one process: their weights are gathered with the rest of the model for the whole step.

    Args:
        model: on its device; the weights of the first process are the ones to begin with.
        optimizer: of its parameters; has not taken a step yet.
    """
    blocks = units_of(model)
    within = sum(p.numel() for block in blocks for p in block.parameters())
    total = sum(p.numel() for p in model.parameters())
    shard(model, optimizer, next(model.parameters()).device, blocks)
    # Heads promise a gradient for every parameter in every process. Where one has none, the processes would exchange
    # others than their neighbours; it counts as zero there.
    cast(FSDPModule, model).set_reduce_scatter_unused_params(True)
    logger.info(
        f"train.fsdp: {comm.get_world_size()} processes share out weights, gradients and moments; {len(blocks)} blocks "
        f"with {within / 1e6:.1f} of {total / 1e6:.1f} M parameters are gathered one at a time."
    )


def units_of(model: nn.Module) -> list[nn.Module]:
    """The modules whose weights are gathered one at a time; of a model without a backbone none."""
    return blocks_of(model.get_submodule("backbone")) if hasattr(model, "backbone") else []


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The blocks that a network repeats: members of one class, with parts of their own, of its innermost lists."""
    members = list(module.children())
    blocks = [block for member in members for block in blocks_of(member)]
    alike = len({type(member) for member in members}) == 1 and all(any(member.children()) for member in members)
    return members if not blocks and alike and isinstance(module, nn.ModuleList | nn.Sequential) else blocks


def check_same_checkpoint(path: str) -> None:
    """Raises UserError unless all processes resume from the same checkpoint, of which each reads its slices."""
    found = sorted({name or "none" for name in comm.all_gather(path)})
    if len(found) > 1:
        raise UserError(
            f"The processes would resume from different checkpoints ({', '.join(found)}); with train.fsdp all machines "
            "must share train.output_dir."
        )
