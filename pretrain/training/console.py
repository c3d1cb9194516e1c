"""What the console says of a training: how large the run is, and how a step of it went."""

import argparse
import logging
from collections.abc import Mapping
from datetime import timedelta

from torch import nn

from pretrain.training.schedule import effective_batch_size
from pretrain.training.step import Step

__all__ = ["log_plan", "log_step"]

logger = logging.getLogger(__name__)


def log_plan(
    args: argparse.Namespace, model: nn.Module, num_images: int, noun: str, world_size: int, steps_per_epoch: int
) -> None:
    """Logs the model, the data, and how many steps of what learning rate a run has.

    Args:
        args: of the run, with the learning rate filled in.
        num_images: of an epoch.
        noun: what the data set has in place of images, "image" or "video".
    """
    logger.info(
        "%s, %d parameters; %d %ss of %s.",
        args.model,
        sum(p.numel() for p in model.parameters()),
        num_images,
        noun,
        "x".join(str(side) for side in args.input_size),
    )
    logger.info(
        "Effective batch %d = %d %ss x %d micro-batches x %d processes; learning rate %.4g; %d steps an epoch x "
        "%d epochs = %d steps.",
        effective_batch_size(args.batch_size, args.accum_iter, world_size),
        args.batch_size,
        noun,
        args.accum_iter,
        world_size,
        args.lr,
        steps_per_epoch,
        args.epochs,
        steps_per_epoch * args.epochs,
    )


def log_step(
    place: str, step: Step, losses: Mapping[str, float], lr: float, speed: Mapping[str, float], memory: int
) -> None:
    """Logs a step that was taken.

    Args:
        place: which step of the run it is.
        losses: those that its loss is made of, by name.
        speed: as :meth:`pretrain.training.metrics.Progress.report` gives it.
        memory: peak so far in bytes.
    """
    logger.info(
        "%s  loss %.4f%s  lr %.3g  grad %.3g  %.1f images/s  data wait %.0f%%  %.0f MB  ETA %s",
        place,
        step.loss,
        f" ({', '.join(f'{name} {value:.4f}' for name, value in losses.items())})" if losses else "",
        lr,
        step.grad_norm,
        speed["images_per_second"],
        100 * speed["data_wait"],
        memory / 1e6,
        timedelta(seconds=round(speed["eta_seconds"])),
    )
