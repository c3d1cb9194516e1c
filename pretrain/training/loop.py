"""The loop every training here runs in: epochs, steps, reports and checkpoints of a run made of parts.

It resumes exactly, accumulates gradients, and shares what happens among processes; a non-finite loss never reaches the
weights (:mod:`pretrain.training.step`).
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from pretrain.common.devices import peak_memory_bytes
from pretrain.common.distributed import World
from pretrain.common.files import save_json
from pretrain.common.sharding import full_weights, whole_weights
from pretrain.data.datasets import EpochDataset
from pretrain.data.samplers import StatelessSampler
from pretrain.training.checkpoint_files import Checkpoints
from pretrain.training.console import log_plan, log_step
from pretrain.training.metrics import MetricWriter, Progress
from pretrain.training.parts import TrainingParts
from pretrain.training.schedule import effective_batch_size, learning_rate, steps_per_epoch
from pretrain.training.sharding import filled_state
from pretrain.training.state import (
    check_continuation,
    check_finite,
    get_rng_state,
    load_optimizer,
    set_rng_state,
)
from pretrain.training.step import Step, Stepper
from pretrain.training.totals import add_step, mean_losses_of, no_totals

__all__ = ["TrainingLoop"]

logger = logging.getLogger(__name__)

BEFORE_TRAINING = -1
"""The epoch of a log's line on the weights that training begins with: the first epoch is 0."""


class TrainingLoop:
    """Runs the parts of a task from wherever a run is to its end.

    Args:
        args: of the run, with learning rate and precision filled in.
        stepper: takes the optimizer steps of `parts.loss` with `parts.optimizer`.
        checkpoints: where they are written.

    Attributes:
        epoch: epochs done.
        iteration: optimizer steps done of the present epoch.
        steps_done: optimizer steps done since the run began.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        world: World,
        device: torch.device,
        parts: TrainingParts,
        stepper: Stepper,
        checkpoints: Checkpoints,
    ):
        self.args, self.world, self.device = args, world, device
        self.parts, self.stepper, self.checkpoints = parts, stepper, checkpoints
        self.effective_batch = effective_batch_size(args.batch_size, args.accum_iter, world.size)
        sampler, dataset = parts.loader.sampler, parts.loader.dataset
        assert isinstance(sampler, StatelessSampler) and isinstance(dataset, EpochDataset)
        self.sampler, self.num_images, self.noun = sampler, len(dataset), dataset.noun
        self.steps_per_epoch = steps_per_epoch(self.num_images, args.batch_size, args.accum_iter, world.size)
        self.epoch = self.iteration = self.steps_done = self.steps_saved = 0
        self.totals = no_totals(self.parts.loss_names)
        self.lr = 0.0
        self.progress = Progress(self.effective_batch, self.steps_per_epoch * args.epochs)
        self.writer: MetricWriter | None = None  # in the main process

    def log_plan(self) -> None:
        """Logs the model, the data, and how many steps of what learning rate the run has."""
        log_plan(self.args, self.parts.model, self.num_images, self.noun, self.world.size, self.steps_per_epoch)

    def train(self) -> None:
        """Trains to the last epoch, or to `--max_steps`; called once.

        Raises:
            UserError: too many images cannot be read, or the evaluation's data cannot be used.
            NonFiniteError: losses stayed non-finite.
        """
        is_new = not self.steps_done
        if self.world.is_main:
            save_json(vars(self.args), self.checkpoints.output_dir / "args.json")
            first = BEFORE_TRAINING if is_new else self.epoch
            self.writer = MetricWriter(self.checkpoints.output_dir, first, self.steps_done)
        if is_new and self.parts.evaluate_start:
            measured = self.parts.evaluate_start()
            if self.writer:
                self.writer.results({"epoch": BEFORE_TRAINING}, measured, self.epoch)
        self.progress = Progress(self.effective_batch, self._last_step())
        while not self.is_over:
            start = time.perf_counter()
            self._train_epoch()
            if self._out_of_steps() and self.iteration < self.steps_per_epoch:
                break
            self._end_epoch(time.perf_counter() - start)
        if self.steps_saved != self.steps_done:
            self._save()
        if self.writer:
            self.writer.close()
        logger.info("Done: %s", self.checkpoints.output_dir)

    def _last_step(self) -> int:
        """How many steps the run will have taken at its end: epochs before a resume may have had other numbers."""
        left = self.steps_per_epoch * (self.args.epochs - self.epoch) - self.iteration
        return min(self.steps_done + left, self.args.max_steps or sys.maxsize)

    @property
    def is_over(self) -> bool:
        """Whether all steps are done."""
        return self.epoch >= self.args.epochs or self._out_of_steps()

    def _out_of_steps(self) -> bool:
        return bool(self.args.max_steps) and self.steps_done >= self.args.max_steps

    def _train_epoch(self) -> None:
        """The steps of the present epoch that are still to be done."""
        args, parts = self.args, self.parts
        parts.set_training_mode()
        self.sampler.set_position(self.epoch, self.iteration * args.accum_iter * args.batch_size)
        for group in self._groups():
            self._set_learning_rate()
            step = self.stepper.step(group)
            self.iteration += 1
            self.steps_done += 1
            self.progress.steps += 1
            self.totals = add_step(self.totals, step)
            if step.loss is not None and parts.after_step:
                parts.after_step((self.epoch + self.iteration / self.steps_per_epoch) / args.epochs)
            if self.iteration % args.log_steps == 0 or self.iteration == self.steps_per_epoch:
                self._report(step)
            if args.save_steps and self.steps_done % args.save_steps == 0 and self.iteration < self.steps_per_epoch:
                self._save()
            if self._out_of_steps():
                return

    def _groups(self) -> Iterator[list[tuple[Any, ...]]]:
        """The micro-batches of each optimizer step, on the device; the last group of an epoch may be smaller."""
        group = []
        start = time.perf_counter()
        for batch in self.parts.loader:
            self.progress.waited += time.perf_counter() - start
            warn_of_corrupt(self.parts.corrupt.add(batch.unreadable[batch.unreadable >= 0].tolist()))
            group.append(self.parts.inputs(batch))
            if len(group) == self.args.accum_iter:
                yield group
                group = []
            start = time.perf_counter()
        if group:
            yield group

    def _set_learning_rate(self) -> None:
        args = self.args
        self.lr = learning_rate(
            self.epoch + self.iteration / self.steps_per_epoch,
            lr=args.lr,
            min_lr=args.min_lr,
            warmup_epochs=args.warmup_epochs,
            epochs=args.epochs,
        )
        for parameters in self.parts.optimizer.param_groups:
            parameters["lr"] = self.lr * parameters.get("lr_scale", 1.0)

    def _report(self, step: Step) -> None:
        speed = self.progress.report(self.steps_done)
        memory = peak_memory_bytes(self.device)
        if step.loss is None or step.grad_norm is None or self.writer is None:
            return
        by_name = dict(zip(self.parts.loss_names, step.parts, strict=True))
        place = f"epoch {self.epoch} step {self.iteration}/{self.steps_per_epoch}"
        log_step(place, step, by_name, self.lr, speed, memory)
        values = {"train/loss": step.loss, "train/lr": self.lr, "train/grad_norm": step.grad_norm}
        values |= {f"train/loss_{name}": value for name, value in by_name.items()}
        self.writer.scalars(values | {f"speed/{k}": v for k, v in speed.items()}, self.steps_done)

    def _end_epoch(self, seconds: float) -> None:
        """Evaluation, results, pictures and the checkpoint of the epoch that has just ended."""
        self._share_corrupt()
        self._finite_content()  # or the evaluation might write the best weights
        means = mean_losses_of(self.totals, self.parts.loss_names)
        results: dict[str, Any] = {
            "epoch": self.epoch,
            **means,
            "skipped_steps": self.totals["skipped"],
            "corrupt_images": len(self.parts.corrupt.indices),
            "lr": self.lr,
            "precision": str(self.parts.precision),
            "seconds": round(seconds, 3),
            "peak_memory_mb": round(peak_memory_bytes(self.device) / 1e6, 1),
        }
        self.epoch, self.iteration = self.epoch + 1, 0
        self.totals = no_totals(self.parts.loss_names)
        with whole_weights(self.stepper.loss_module):
            evaluated = self.parts.evaluate(self.epoch) if self.parts.evaluate else {}
            if self.writer:
                self.writer.results(results, means | evaluated, self.epoch)
                if self.parts.draw:
                    self.parts.draw(self.epoch, self.writer)
        if self.epoch % self.args.save_epochs == 0:
            self._save()
        self.progress.reset()

    def _share_corrupt(self) -> None:
        """Every process takes note of the images that any of them could not read."""
        indices: set[int] = set().union(*self.world.gather(self.parts.corrupt.indices))
        warn_of_corrupt(self.parts.corrupt.add(indices))

    def _save(self) -> None:
        """Writes a checkpoint from which the run continues as if it had not stopped."""
        self._share_corrupt()
        parts, content = self.parts, self._finite_content()
        rng = self.world.gather(get_rng_state(self.device))
        self.steps_saved = self.steps_done
        if not (self.world.is_main or self.checkpoints.saved_by_all):
            return
        state = {
            "model": content.pop("model"),
            "optimizer": content.pop("optimizer"),
            "stepper": self.stepper.state_dict(),
            "epoch": self.epoch,
            "iteration": self.iteration,
            "step": self.steps_done,
            "effective_batch": self.effective_batch,
            "images": self.num_images,
            "totals": self.totals,
            "corrupt": sorted(parts.corrupt.indices),
            "rng": rng,
            "args": vars(self.args),
            **content,
        }
        logger.info("Saved %s", self.checkpoints.save(state, self.steps_done))
        state["model"] = full_weights(parts.model, kept=self.world.is_main)
        if self.world.is_main:
            parts.export(state)

    def _finite_content(self) -> dict[str, Any]:
        """All that has weights or moments in a checkpoint; raises NonFiniteError rather than let them be written."""
        content = {"model": self.parts.model.state_dict(), "optimizer": self.parts.optimizer.state_dict()}
        for extra in self.parts.extras:
            content |= extra.state_dict()
        check_finite(content, self.steps_done, self.world)
        return content

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Puts the run where it was when `state`, read from `path`, was written.

        Raises:
            UserError: the checkpoint is not of this run.
        """
        parts = self.parts
        self.checkpoints.check_newest(path, state["step"])
        check_continuation(state, path, self.effective_batch, self.num_images, self.args.shard_window)
        for extra in parts.extras:
            extra.check(state)
        state = filled_state(state, path, parts.model, parts.optimizer)
        self.epoch, self.iteration, self.steps_done = state["epoch"], state["iteration"], state["step"]
        self.totals, self.steps_saved = dict(state["totals"]), self.steps_done
        parts.model.load_state_dict(state["model"])
        load_optimizer(parts.optimizer, state["optimizer"])
        self.stepper.load_state_dict(state["stepper"])
        parts.corrupt.indices = set(state["corrupt"])
        for extra in parts.extras:
            extra.load_state_dict(state)
        if len(state["rng"]) == self.world.size:
            set_rng_state(state["rng"][self.world.rank], self.device)
        if self.world.is_main:
            self.checkpoints.set_damaged_aside()
        logger.info("Resumed %s at epoch %d, step %d of it.", path, self.epoch, self.iteration)


def warn_of_corrupt(names: Iterable[str]) -> None:
    for name in names:
        logger.warning("Cannot read %s; the next one takes its place.", name)
