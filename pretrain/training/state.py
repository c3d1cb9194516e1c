"""Checkpoints of a run: what resumes it exactly, and what starts another one."""

import argparse
import logging
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pretrain.checkpoints.convert import Target
from pretrain.checkpoints.inflation import ClipShape, inflate
from pretrain.checkpoints.kinds import Part
from pretrain.checkpoints.published import local_weights
from pretrain.checkpoints.recognition import recognise, summarise
from pretrain.common.decoders import EARLIER_DECODER
from pretrain.common.distributed import World
from pretrain.common.errors import NonFiniteError, UserError
from pretrain.common.files import load_checkpoint
from pretrain.common.tensors import first_non_finite
from pretrain.models.autoencoder import DECODER_PREFIXES
from pretrain.models.video.autoencoder import VideoConvMAE
from pretrain.names import CLIP_OPTIONS
from pretrain.training.checkpoint_files import load_unfilled
from pretrain.training.target_args import loss_weights

__all__ = [
    "check_continuation",
    "check_finite",
    "exported_step",
    "get_rng_state",
    "initialise_model",
    "load_optimizer",
    "load_run_state",
    "set_rng_state",
    "warn_of_another_rate",
]

logger = logging.getLogger(__name__)

FIXED = ("pos_embed", "decoder_pos_embed")


def get_rng_state(device: torch.device) -> dict:
    """State of every global random generator and the device's, in types that load without running code."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_rng_state(state: dict, device: torch.device) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def load_run_state(path: Path, args: argparse.Namespace) -> dict:
    """A full checkpoint of a run with these arguments, as :func:`load_unfilled` gives it.

    Raises:
        FileNotFoundError, UserError: the file is missing, damaged, of another model, or not of a run.
    """
    state = load_unfilled(path)
    if not isinstance(state, dict) or not {"model", "optimizer", "epoch", "step", "rng"} <= state.keys():
        raise UserError(
            f"{path} holds no state of a run of this program, so it cannot be resumed; start from its weights "
            "with --init_weights."
        )
    sizes = ("model", "input_size", "in_chans", "patch_size", "mlp_ratio", "global_pool", *CLIP_OPTIONS, "positions")
    for name in sizes:
        then, now = state["args"].get(name), getattr(args, name, None)
        if name in state["args"] and then != now:
            raise UserError(
                f"{path} is of a run with --{name} {then}, not {now}; resume with that, or start a new run with "
                "--init_weights."
            )
    then, now = (" ".join(loss_weights(run)) for run in (state["args"], vars(args)))
    if then != now:
        raise UserError(
            f"{path} is of a run that learns {then}, not {now}; resume with its --targets and --mimic, or start a new "
            "run with --init_weights."
        )
    same_run = ("resume", "output_dir", "device", "num_workers", "log_steps", "max_steps", "init_weights", "fsdp")
    for name, value in ({"decoder": EARLIER_DECODER} | state["args"]).items():
        present = getattr(args, name, None)
        if name not in same_run and present is not None and present != value:
            logger.warning("Resuming with --%s %s where the run had %s.", name, present, value)
    return state


def check_continuation(
    state: Mapping[str, Any], path: Path, effective_batch: int, num_images: int, shard_window: int
) -> None:
    """Raises UserError if a run cannot go on where the checkpoint was written.

    In the middle of an epoch the images still to come depend on the effective batch, the number of images and the order
    in which tar files are read.
    """
    iteration = state["iteration"]
    if iteration and state["effective_batch"] != effective_batch:
        raise UserError(
            f"{path} is in the middle of an epoch, after {iteration} steps of effective batch "
            f"{state['effective_batch']}, which are other images than as many of {effective_batch}; resume "
            "with the same --batch_size x --accum_iter x processes, or from the end of an epoch."
        )
    images = state.get("images", num_images)
    if iteration and images != num_images:
        raise UserError(
            f"{path} is in the middle of an epoch of {images} images, but there are {num_images} "
            "now, in another order; resume with the same data, or from the end of an epoch."
        )
    window = state["args"].get("shard_window", 0)
    if iteration and window != shard_window:
        raise UserError(
            f"{path} is in the middle of an epoch with --shard_window {window}, and with {shard_window} its images "
            f"come in another order; resume with --shard_window {window}, or from the end of an epoch."
        )


def check_finite(content: Mapping[str, Any], step: int, world: World) -> None:
    """Raises NonFiniteError, in all processes, for weights or moments that must not take the place of good ones."""
    found = next(filter(None, world.gather(first_non_finite(content))), None)
    if found:
        raise NonFiniteError(
            f"There is {found} after step {step}, so no checkpoint is written and the earlier ones stay. Continue from "
            "them with --resume auto, and lower --blr or set --clip_grad."
        )


def exported_step(path: Path) -> int | None:
    """The step that exported weights are of; None for a file that is missing, damaged or of an earlier version."""
    try:
        content = load_checkpoint(path)
    except (FileNotFoundError, UserError):
        return None
    return content.get("step") if isinstance(content, dict) else None


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Loads the moments; weight decay and ratios of learning rates stay the arguments', which may have changed."""
    names = ("weight_decay", "lr_scale")
    chosen = [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, chosen, strict=True):
        group.update(values)


def warn_of_another_rate(before: float | None, now: float) -> None:
    """Says that a learning rate, derived as --lr is not given, is not that of the run to resume."""
    if before is not None and not math.isclose(before, now):
        logger.warning(
            "Resuming with the learning rate %.4g, which follows from --blr, where the run had %.4g; --lr %.10g keeps "
            "that.",
            now,
            before,
            before,
        )


def initialise_model(model: nn.Module, path: str | Path) -> None:
    """Loads the weights of a published or own file into a model, and logs what was loaded and what was not.

    A video model takes image files too, inflated.

    A missing decoder (files published without it, and encoder-only ones) keeps its initialisation. Position tables are
    fixed and belong to the image size, so the model's own stay.

    Args:
        model: an autoencoder.
        path: a file, or the name or address of one (:func:`local_weights`).

    Raises:
        FileNotFoundError, UserError: the file is missing or damaged, or does not hold this model.
    """
    checkpoint = recognise(local_weights(path))
    state = checkpoint.tensors
    if isinstance(model, VideoConvMAE) and checkpoint.kind.family == "ConvViT":
        state, report = inflate(checkpoint, Target.PRETRAIN, ClipShape.of(model))
        logger.info("%s", report)
    if isinstance(model, VideoConvMAE) and not model.multi_scale:
        unused = [name for name in state if checkpoint.kind.part_of(name) is Part.STAGE_DECODE]
        state = {name: t for name, t in state.items() if name not in unused}
        if unused:
            logger.info("Left out, as the model's decoder is not multi-scale: %s.", summarise(unused))
    own = model.state_dict()
    loadable = {name: t for name, t in state.items() if name in own and t.shape == own[name].shape}
    fixed = [name for name in FIXED if name in own]
    missing = sorted(own.keys() - state.keys() - set(fixed))
    predicts_pixels = "decoder_pred.weight" in own
    heads = ("decoder_targets.", "mimic_head.") if predicts_pixels else DECODER_PREFIXES
    other_targets = {name for name in state.keys() - own.keys() if name.startswith(heads)}
    unexpected = sorted(state.keys() - own.keys() - other_targets)
    reshaped = sorted((state.keys() & own.keys()) - loadable.keys() - set(fixed))
    unexplained = [name for name in missing if not name.startswith(DECODER_PREFIXES)] + unexpected + reshaped
    if unexplained:
        raise UserError(
            f"{path} does not hold this model's weights: {len(loadable)} of {len(own)} tensors fit, "
            f"{len(unexpected)} are unexpected, {len(missing)} missing, {len(reshaped)} of another shape "
            f"(for example {unexplained[0]}). Choose the --model the file was made with."
        )
    for name in fixed:
        loadable.pop(name, None)
    model.load_state_dict(loadable, strict=False)
    logger.info("%s: %d tensors loaded; fixed position tables are the model's own.", path, len(loadable))
    if other_targets:
        logger.info("Left out: what the decoder has for other targets (%d tensors).", len(other_targets))
    if missing:
        logger.info("Not in the file, newly initialised: the decoder (%d tensors).", len(missing))
