"""Learning-rate schedules derived from one number, the count of iterations."""

import math

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from omegaconf import DictConfig

__all__ = [
    "COCO_TRAIN_IMAGES",
    "LVIS_TRAIN_IMAGES",
    "WarmupOverIterations",
    "cosine_schedule",
    "fit_schedule",
    "iterations",
    "linear_schedule",
    "multistep_schedule",
]

COCO_TRAIN_IMAGES = 118_000
"""Images of an epoch as ViTDet counts them; train2017 holds 118 287, of which 117 266 are annotated."""

LVIS_TRAIN_IMAGES = 100_000
"""Images of an epoch of LVIS v1 as ViTDet counts them; lvis_v1_train holds 100 170."""


def iterations(epochs: float, images: int, batch_size: int) -> int:
    """Optimizer steps in `epochs` passes over `images` at `batch_size`, at least one; halves are cut, as published."""
    return max(1, math.ceil(epochs * images / batch_size - 0.5))


def multistep_schedule(
    max_iter: int,
    warmup_iter: float = 250,
    milestones: tuple[float, float] = (8 / 9, 26 / 27),
    warmup_factor: float = 0.001,
) -> DictConfig:
    """Linear warm-up, then ×0.1 at each of two milestones; the defaults are ViTDet's.

    Args:
        max_iter: iterations of the run.
        warmup_iter: iterations of warm-up.
        milestones: as fractions of the run.
        warmup_factor: what the warm-up begins at.

    Returns:
        the LazyConfig of a schedule over `max_iter` iterations; its multiplier is relative to the base learning rate.
    """
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01],
            milestones=[round(max_iter * fraction) for fraction in milestones],
            num_updates=max_iter,
        ),
        warmup_length=min(warmup_iter / max_iter, 1.0),
        warmup_factor=warmup_factor,
    )


class WarmupOverIterations(WarmupParamScheduler):
    """A warm-up around a schedule over fractions of the run, which also stores the number of iterations of the run.

    Args:
        scheduler, warmup_factor, warmup_length: as in :class:`detectron2.solver.WarmupParamScheduler`.
        num_updates: iterations of the run; nothing is computed from it, but :func:`fit_schedule` needs it.
    """

    def __init__(self, scheduler: ParamScheduler, warmup_factor: float, warmup_length: float, num_updates: int):
        super().__init__(scheduler, warmup_factor, warmup_length)
        self.num_updates = num_updates


def cosine_schedule(max_iter: int, warmup_iter: float) -> DictConfig:
    """Linear warm-up from 0, then half a cosine to 0; otherwise as :func:`linear_schedule`."""
    return _smooth_schedule(L(CosineParamScheduler)(start_value=1.0, end_value=0.0), max_iter, warmup_iter, 0.0)


def linear_schedule(max_iter: int, warmup_iter: float, warmup_factor: float = 1e-6) -> DictConfig:
    """Linear warm-up, then linear decay that reaches 0 at the end.

    Args:
        max_iter: iterations of the run.
        warmup_iter: iterations of warm-up.
        warmup_factor: what the warm-up begins at.

    Returns:
        the LazyConfig of the schedule over fractions of the run; its multiplier is relative to the base
        learning rate.
    """
    decay = L(LinearParamScheduler)(start_value=1.0, end_value=0.0)
    return _smooth_schedule(decay, max_iter, warmup_iter, warmup_factor)


def _smooth_schedule(decay: DictConfig, max_iter: int, warmup_iter: float, warmup_factor: float) -> DictConfig:
    return L(WarmupOverIterations)(
        scheduler=decay,
        warmup_length=min(warmup_iter / max_iter, 1.0),
        warmup_factor=warmup_factor,
        num_updates=max_iter,
    )


def fit_schedule(schedule: DictConfig, max_iter: int) -> None:
    """Makes a schedule written for one number of iterations that of a run with another.

    Milestones stay at their fractions of the run. Warm-up keeps its number of iterations, as the recipes of different
    lengths do, up to a tenth of the run (or its own fraction, if that is more). A schedule that does not say for how
    many iterations it was written, as detectron2's own cosine, stays as it is.

    Args:
        schedule: LazyConfig of a warm-up around a schedule; changed in place.
        max_iter: iterations of the run.
    """
    steps: DictConfig = schedule.get("scheduler") or DictConfig({})
    planned = schedule.get("num_updates") or steps.get("num_updates")
    if not planned or planned == max_iter:
        return
    if "num_updates" in schedule:
        schedule.num_updates = max_iter
    else:
        _fit_milestones(steps, planned, max_iter)
    fraction = schedule.warmup_length
    schedule.warmup_length = min(fraction * planned / max_iter, max(fraction, 0.1))


def _fit_milestones(steps: DictConfig, planned: int, max_iter: int) -> None:
    milestones = [round(m * max_iter / planned) for m in steps.get("milestones") or []]
    # In a very short run milestones may coincide; then they stay as they were, as only their fractions matter.
    if all(a < b for a, b in zip([0, *milestones], [*milestones, max_iter], strict=True)):
        steps.update(num_updates=max_iter, milestones=milestones)
