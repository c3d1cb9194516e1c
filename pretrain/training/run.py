"""A training run from its arguments: where it starts, its learning rate, its parts, and the loop that runs them."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretrain.common.decoders import DEFAULT_DECODER, EARLIER_DECODER
from pretrain.common.devices import default_amp
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.gradient_strides import match_gradient_strides
from pretrain.common.run_lock import run_lock
from pretrain.common.seeding import seed_everything
from pretrain.common.sharding import full_weights
from pretrain.training.checkpoint_files import Checkpoints, ShardedCheckpoints
from pretrain.training.loop import TrainingLoop
from pretrain.training.parts import MakeParts, TrainingParts
from pretrain.training.schedule import effective_batch_size, scaled_learning_rate
from pretrain.training.sharding import shard_blocks, shards_weights
from pretrain.training.state import exported_step, load_run_state, warn_of_another_rate
from pretrain.training.step import Stepper

__all__ = ["train"]

logger = logging.getLogger(__name__)


def train(args: argparse.Namespace, world: World, device: torch.device, make_parts: MakeParts) -> None:
    """Starts or resumes a run and trains to its end; of one that is there already, does what else is due.

    Args:
        args: those of :func:`pretrain.training.args.add_run_arguments` and its neighbours, and what the task needs;
            they stay as they are.
        make_parts: of the task, for example :func:`pretrain.training.pretraining.pretraining_parts`.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
        NonFiniteError: losses stayed non-finite.
    """
    seed_everything(args.seed + world.rank)
    checkpoints = _make_checkpoints(args, world)
    path = _shared_checkpoint(checkpoints, args.resume, world)
    state = load_run_state(path, args) if path else None
    args = _settled(args, world, device, state)
    parts = make_parts(args, world, device, bool(args.init_weights) and not state)
    loss = _parallel(parts, args, world, device)
    stepper = Stepper(loss, parts.optimizer, parts.precision, world, args.clip_grad, args.max_failures)
    loop = TrainingLoop(args, world, device, parts, stepper, checkpoints)
    loop.log_plan()
    with _locked(args.output_dir, world):
        if path and state:
            loop.restore(state, path)
            if loop.is_over:
                state = {**state, "model": full_weights(parts.model, kept=world.is_main)}
                if world.is_main:
                    _export_due(parts, state, path)
                return
        if parts.start:
            parts.start()
        loop.train()


@contextmanager
def _locked(output_dir: str, world: World) -> Iterator[None]:
    """The main process keeps others out of the folder; all processes learn it if that cannot be."""
    with ExitStack() as stack:
        failure = ""
        if world.is_main:
            try:
                stack.enter_context(run_lock(output_dir))
            except UserError as e:
                failure = str(e)
        if failure := next(filter(None, world.gather(failure)), ""):
            raise UserError(failure)
        yield


def _export_due(parts: TrainingParts, state: dict, path: Path) -> None:
    """What a run that ended or was killed after its last checkpoint, `state`, may have left to do."""
    logger.info(
        "Nothing is left to train: %s is at epoch %d, step %d; raise --epochs or --max_steps to go on.",
        path,
        state["epoch"],
        state["step"],
    )
    due = [file.name for file in parts.exports if exported_step(file) != state["step"]]
    if due:
        parts.export(state)
        logger.info("%s was still due and is written now.", " and ".join(due))
    else:
        logger.info("Nothing else is due.")


def _shared_checkpoint(checkpoints: Checkpoints, resume: str, world: World) -> Path | None:
    """The checkpoint that all processes resume from, or None."""
    found = checkpoints.find(resume)
    everywhere = sorted({str(path or "none") for path in world.gather(found)})
    if len(everywhere) > 1:
        raise UserError(
            f"The processes would resume from different checkpoints ({', '.join(everywhere)}): --output_dir "
            f"{checkpoints.output_dir} must be a folder that all nodes share."
        )
    return found


def _settled(args: argparse.Namespace, world: World, device: torch.device, state: dict | None) -> argparse.Namespace:
    """The arguments with the learning rate, the precision and the decoder of the run in place of None."""
    lr, amp = args.lr, args.amp or default_amp(device)
    decoder = args.decoder or (state["args"].get("decoder", EARLIER_DECODER) if state else DEFAULT_DECODER)
    if lr is None:
        lr = scaled_learning_rate(args.blr, effective_batch_size(args.batch_size, args.accum_iter, world.size))
        if state:
            warn_of_another_rate(state["args"].get("lr"), lr)
    return argparse.Namespace(**vars(args) | dict(lr=lr, amp=amp, decoder=decoder))


def _make_checkpoints(args: argparse.Namespace, world: World) -> Checkpoints:
    output_dir, keep = Path(args.output_dir), args.keep_checkpoints
    return (
        ShardedCheckpoints(output_dir, keep, world) if getattr(args, "fsdp", False) else Checkpoints(output_dir, keep)
    )


def _parallel(parts: TrainingParts, args: argparse.Namespace, world: World, device: torch.device) -> nn.Module:
    """The loss, compiled if asked for, whose gradients are averaged over the processes."""
    loss = parts.loss
    if shards_weights(args, world):
        shard_blocks(loss, parts.optimizer, device)
        logger.info("Weights, gradients and moments are shared out over %d processes.", world.size)
        return loss
    if args.compile:
        loss = cast(nn.Module, torch.compile(loss))
    if world.size == 1:
        return loss
    match_gradient_strides(loss)
    return DistributedDataParallel(loss, device_ids=[device.index] if device.type == "cuda" else None)
