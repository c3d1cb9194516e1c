"""Learning rate, iterations and periods of a run, from its epochs, images, batch and processes."""

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from lazyrun.config.schedule import fit_schedule, iterations
from pretrain.common.errors import UserError

__all__ = ["DERIVED_FROM_EPOCHS", "Recipe", "check_batch", "derive_recipe"]

DERIVED_FROM_EPOCHS = {
    "train.max_iter": "train.epochs",
    "train.eval_period": "train.eval_epochs",
    "train.checkpointer.period": "train.checkpoint_epochs",
}
"""What `train.epochs` sets, and the option that says the same in epochs."""

LARGEST_RATE = 1e6
"""No model learns at such a rate, and much larger ones are no numbers of 32 bits."""

MAX_EVALUATIONS = 25
"""Evaluations and checkpoints of a run in epochs, unless a run asks for more: of a small data set an epoch is short."""


@dataclass(frozen=True)
class Recipe:
    """One run in numbers; `str()` is the block that the log shows.

    Attributes:
        images: of the training set, as the loader sees it (usually without images that have no annotation).
        world_size: processes, one a GPU.
        total_batch_size: images of one optimizer step.
        grad_accum_steps: micro-batches of one optimizer step, on each process.
        max_iter: optimizer steps.
        eval_period: in optimizer steps; 0 evaluates at the end alone.
        checkpoint_period: in optimizer steps.
        lr: base learning rate after warm-up, before the factor of each layer.
        lr_scale: what the configured learning rate was multiplied by.
        schedule: the `lr_multiplier` of the run.
    """

    images: int
    world_size: int
    total_batch_size: int
    grad_accum_steps: int
    max_iter: int
    eval_period: int
    checkpoint_period: int
    lr: float
    lr_scale: float
    schedule: DictConfig

    @property
    def micro_batch_size(self) -> int:
        """Images of one forward pass on one process."""
        return self.total_batch_size // (self.grad_accum_steps * self.world_size)

    @property
    def iterations_per_epoch(self) -> float:
        return self.images / self.total_batch_size

    def __str__(self) -> str:
        lr = f"{self.lr:.3g}"
        if self.lr_scale != 1:
            lr += f" = {self.lr / self.lr_scale:.3g} x {self.lr_scale:.3g} for a batch of {self.total_batch_size}"
        evaluation = f"every {self.eval_period} iterations and at the end" if self.eval_period else "at the end"
        rows = {
            "images": self.images,
            "batch": f"{self.total_batch_size} = {self.world_size} x {self.grad_accum_steps} x {self.micro_batch_size}"
            " (processes x micro-batches x images)",
            "iterations": f"{self.max_iter} = {self.max_iter / self.iterations_per_epoch:.4g} epochs of "
            f"{self.iterations_per_epoch:.1f}",
            "learning rate": lr,
            **self._schedule_rows(),
            "evaluation": evaluation,
            "checkpoint": f"every {self.checkpoint_period} iterations",
        }
        return "This run:\n" + "\n".join(f"  {name:<14} {value}" for name, value in rows.items())

    def _schedule_rows(self) -> dict[str, str]:
        rows = {}
        if (length := self.schedule.get("warmup_length")) is not None:
            start = self.schedule.get("warmup_factor")
            rows["warm-up"] = f"{length * self.max_iter:.4g} iterations from x{start}"
        steps = self.schedule.get("scheduler") or {}
        if milestones := steps.get("milestones"):
            scale = self.max_iter / steps["num_updates"] if steps.get("num_updates") else 1
            drops = zip(milestones, list(steps["values"])[1:], strict=False)
            rows["milestones"] = ", ".join(f"{math.ceil(m * scale)} (x{value})" for m, value in drops)
        return rows


def derive_recipe(cfg: DictConfig, images: int, world_size: int) -> Recipe:
    """Fills in what follows from `train.epochs`, the batch and the images; the rest stays as configured.

    With `train.epochs`, `train.max_iter = epochs * images / total_batch_size`, and `train.eval_period` and
    `train.checkpointer.period` follow from `train.eval_epochs` and `train.checkpoint_epochs`; by default every epoch,
    or as many epochs as make 25 of them in a run. The schedule is fitted to `train.max_iter`
    (:func:`lazyrun.config.schedule.fit_schedule`). With `train.lr_base_batch_size`, `optimizer.lr` is the learning rate
    for that batch and is scaled linearly to the run's (arXiv:1706.02677). Deriving twice changes nothing.

    Args:
        cfg: config of the run; changed in place.
        images: of the training set as the loader sees it.
        world_size: processes.

    Returns:
        the numbers, for the log.

    Raises:
        UserError: a number is out of its range, or the batch does not divide into micro-batches.
    """
    train, batch = cfg.train, cfg.dataloader.train.total_batch_size
    if _positive("optimizer.lr", cfg.optimizer.lr) > LARGEST_RATE:
        raise UserError(f"optimizer.lr={cfg.optimizer.lr} must be at most {LARGEST_RATE:g}.")
    periods = {"log_period": train.log_period, "checkpointer.period": train.checkpointer.period}
    for name, value in {"max_iter": train.max_iter, "eval_period": train.eval_period, **periods}.items():
        least = 0 if name == "eval_period" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"train.{name}={value} must be a whole number of iterations, at least {least}.")
    check_batch(batch, train.grad_accum_steps, world_size)
    if train.epochs is not None:
        _fill_in_epochs(train, images, batch)
    fit_schedule(cfg.lr_multiplier, train.max_iter)
    lr_scale = 1.0
    if train.lr_base_batch_size is not None:
        lr_scale = batch / _positive("train.lr_base_batch_size", train.lr_base_batch_size)
        cfg.optimizer.lr *= lr_scale
        train.lr_base_batch_size = batch  # the learning rate is that of this batch now, also in the dumped config
    return Recipe(
        images=images,
        world_size=world_size,
        total_batch_size=batch,
        grad_accum_steps=train.grad_accum_steps,
        max_iter=train.max_iter,
        eval_period=train.eval_period,
        checkpoint_period=train.checkpointer.period,
        lr=cfg.optimizer.lr,
        lr_scale=lr_scale,
        schedule=cfg.lr_multiplier,
    )


def check_batch(batch: int, grad_accum_steps: int, world_size: int) -> None:
    """Raises UserError unless processes and micro-batches share the images of a step evenly."""
    for name, value in (("train.grad_accum_steps", grad_accum_steps), ("dataloader.train.total_batch_size", batch)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name}={value} must be a whole number of at least 1.")
    if batch % (grad_accum_steps * world_size):
        raise UserError(
            f"dataloader.train.total_batch_size={batch} is not a positive multiple of {grad_accum_steps * world_size}: "
            f"{world_size} training processes x train.grad_accum_steps={grad_accum_steps}."
        )


def _fill_in_epochs(train: DictConfig, images: int, batch: int) -> None:
    epochs = _positive("train.epochs", train.epochs)
    train.max_iter = iterations(epochs, images, batch)

    def period(name: str, chosen: float | None) -> int:
        unit = math.ceil(epochs / MAX_EVALUATIONS) if chosen is None else _positive(name, chosen)
        # Rounded up, so that the last one of a run does not come a few iterations before its end.
        return math.ceil(train.max_iter * unit / epochs)

    train.eval_period = 0 if train.eval_epochs == 0 else period("train.eval_epochs", train.eval_epochs)
    train.checkpointer.period = period("train.checkpoint_epochs", train.checkpoint_epochs)


def _positive(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise UserError(f"{name}={value} must be a number above 0.")
    return value
