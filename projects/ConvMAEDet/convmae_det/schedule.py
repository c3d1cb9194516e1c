"""Learning-rate schedules derived from one number, the count of iterations."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

__all__ = ["COCO_TRAIN_IMAGES", "LVIS_TRAIN_IMAGES", "iterations", "multistep_schedule"]

COCO_TRAIN_IMAGES = 118_000
"""Images of an epoch as ViTDet counts them; train2017 holds 118 287, of which 117 266 are annotated."""

LVIS_TRAIN_IMAGES = 100_000
"""Images of an epoch of LVIS v1 as ViTDet counts them; lvis_v1_train holds 100 170."""


def iterations(epochs: float, images: int, batch_size: int) -> int:
    """Optimizer steps in `epochs` passes over `images` at `batch_size`, at least one."""
    return max(1, round(epochs * images / batch_size))


def multistep_schedule(max_iter: int, warmup_iter: int = 250):
    """ViTDet's schedule: linear warm-up from 0.001, then ×0.1 after 8/9 and again after 26/27 of the iterations.

    Returns:
        the LazyConfig of a schedule over `max_iter` iterations; its multiplier is relative to the base learning rate.
    """
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01],
            milestones=[round(max_iter * 8 / 9), round(max_iter * 26 / 27)],
            num_updates=max_iter,
        ),
        warmup_length=min(warmup_iter / max_iter, 1.0),
        warmup_factor=0.001,
    )
