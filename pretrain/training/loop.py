"""The loop every training here runs in: pretraining, fine-tuning and the linear probe fill in what is their own.

It resumes exactly, accumulates gradients, shares what happens among processes, reports progress, and writes
checkpoints; a non-finite loss never reaches the weights (:mod:`pretrain.training.step`).
"""

import argparse
import json
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from pretrain.common.devices import peak_memory_bytes
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.training.hooks import TrainingHooks
from pretrain.training.logging import MetricWriter, Progress
from pretrain.training.precision import Precision, default_amp
from pretrain.training.schedule import effective_batch_size, learning_rate, scaled_learning_rate
from pretrain.training.state import (
    Checkpoints,
    get_rng_state,
    load_optimizer,
    load_run_weights,
    seed_everything,
    set_rng_state,
    warn_of_another_rate,
)
from pretrain.training.step import Step, Stepper

__all__ = ["TrainingRun"]

logger = logging.getLogger(__name__)


class TrainingRun(TrainingHooks):
    """Everything a run consists of; made from the arguments, then `train` is called once.

    Args:
        args: those of :func:`pretrain.training.args.add_run_arguments` and its neighbours, and what the subclass needs.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
    """

    def __init__(self, args: argparse.Namespace, world: World, device: torch.device):
        self.args, self.world, self.device = args, world, device
        seed_everything(args.seed + world.rank)
        self.output_dir = Path(args.output_dir)
        self.checkpoints = Checkpoints(self.output_dir, args.keep_checkpoints)
        resume_from = self._find_checkpoint()
        state = load_run_weights(resume_from, args) if resume_from else None

        self.build()
        self._derive_schedule(state)
        if args.init_weights and not state:
            self.load_initial_weights()
        self.model.to(device)
        self._make_stepper()
        self.epoch = self.iteration = self.steps_done = self.steps_saved = 0
        self.totals = {"loss": 0.0, "steps": 0, "skipped": 0}
        self.prepare()
        if state:
            self._restore(state, resume_from)
        self.output_dir.mkdir(parents=True, exist_ok=True)

    def train(self) -> None:
        """Trains to the last epoch, or to `--max_steps`.

        Raises:
            NonFiniteError: losses stayed non-finite.
        """
        if self.world.is_main:
            (self.output_dir / "args.json").write_text(json.dumps(vars(self.args), indent=2) + "\n")
            self.writer = MetricWriter(self.output_dir, self.epoch, self.steps_done)
        steps_left = self.steps_per_epoch * (self.args.epochs - self.epoch) - self.iteration
        self.progress = Progress(self.effective_batch, self.steps_done + steps_left)
        while self.epoch < self.args.epochs and not self._out_of_steps():
            start = time.perf_counter()
            self._train_epoch()
            if self._out_of_steps() and self.iteration < self.steps_per_epoch:
                break
            self._end_epoch(time.perf_counter() - start)
        if self.steps_saved != self.steps_done:
            self._save()
        if self.world.is_main:
            self.writer.close()
        logger.info("Done: %s", self.output_dir)

    def _find_checkpoint(self) -> Path | None:
        found = self.checkpoints.find(self.args.resume)
        everywhere = sorted({str(path or "none") for path in self.world.gather(found)})
        if len(everywhere) > 1:
            raise UserError(
                f"The processes would resume from different checkpoints ({', '.join(everywhere)}): --output_dir "
                f"{self.output_dir} must be a folder that all nodes share."
            )
        return found

    def _derive_schedule(self, state: dict | None) -> None:
        """Works out steps and learning rate, and says so first; `state` is that of a run to resume."""
        args = self.args
        self.effective_batch = effective_batch_size(args.batch_size, args.accum_iter, self.world.size)
        if args.lr is None:
            args.lr = scaled_learning_rate(args.blr, self.effective_batch)
            if state:
                warn_of_another_rate(state["args"].get("lr"), args.lr)
        self.steps_per_epoch = -(-len(self.loader) // args.accum_iter)
        logger.info(
            "%s, %d parameters; %d images of %dx%d.",
            args.model,
            sum(p.numel() for p in self.model.parameters()),
            len(self.loader.dataset),
            *self.model.img_size,
        )
        logger.info(
            "Effective batch %d = %d images x %d micro-batches x %d processes; learning rate %.4g; %d steps an epoch x "
            "%d epochs = %d steps.",
            self.effective_batch,
            args.batch_size,
            args.accum_iter,
            self.world.size,
            args.lr,
            self.steps_per_epoch,
            args.epochs,
            self.steps_per_epoch * args.epochs,
        )

    def _make_stepper(self) -> None:
        args = self.args
        if args.amp is None:
            args.amp = default_amp(self.device)
        loss_module = self.make_loss_module()
        if args.compile:
            loss_module = torch.compile(loss_module)
        if self.world.size > 1:
            loss_module = DistributedDataParallel(
                loss_module, device_ids=[self.device.index] if self.device.type == "cuda" else None
            )
        precision = Precision(args.amp, self.device, self.model, getattr(args, "fp32_decoder", False))
        self.stepper = Stepper(
            loss_module, self.make_optimizer(), precision, self.world, args.clip_grad, args.max_failures
        )

    def _restore(self, state: dict, path: Path) -> None:
        self.epoch, self.iteration, self.steps_done = state["epoch"], state["iteration"], state["step"]
        self.totals, self.steps_saved = dict(state["totals"]), self.steps_done
        self.checkpoints.check_newest(path, self.steps_done)
        if self.epoch >= self.args.epochs:
            raise UserError(
                f"Nothing is left to train: {path} is at epoch {self.epoch} of {self.args.epochs}; raise --epochs to "
                "go on."
            )
        if self.iteration and state["effective_batch"] != self.effective_batch:
            raise UserError(
                f"{path} is in the middle of an epoch, after {self.iteration} steps of effective batch "
                f"{state['effective_batch']}, which are other images than as many of {self.effective_batch}; resume "
                "with the same --batch_size x --accum_iter x processes, or from the end of an epoch."
            )
        images = state.get("images", len(self.loader.dataset))
        if self.iteration and images != len(self.loader.dataset):
            raise UserError(
                f"{path} is in the middle of an epoch of {images} images, but there are {len(self.loader.dataset)} "
                "now, in another order; resume with the same data, or from the end of an epoch."
            )
        self.check_state(state)
        self.model.load_state_dict(state["model"])
        load_optimizer(self.stepper.optimizer, state["optimizer"])
        self.stepper.load_state_dict(state["stepper"])
        self.corrupt.indices = set(state["corrupt"])
        self.restore_extra_state(state)
        if len(state["rng"]) == self.world.size:
            set_rng_state(state["rng"][self.world.rank], self.device)
        logger.info("Resumed %s at epoch %d, step %d of it.", path, self.epoch, self.iteration)

    def _out_of_steps(self) -> bool:
        return bool(self.args.max_steps) and self.steps_done >= self.args.max_steps

    def _train_epoch(self) -> None:
        """The steps of the present epoch that are still to be done."""
        args = self.args
        self.set_training_mode()
        self.loader.sampler.set_position(self.epoch, self.iteration * args.accum_iter * args.batch_size)
        for group in self._groups():
            self.lr = learning_rate(
                self.epoch + self.iteration / self.steps_per_epoch,
                lr=args.lr,
                min_lr=args.min_lr,
                warmup_epochs=args.warmup_epochs,
                epochs=args.epochs,
            )
            for parameters in self.stepper.optimizer.param_groups:
                parameters["lr"] = self.lr * parameters.get("lr_scale", 1.0)
            step = self.stepper.step(group)
            self.iteration += 1
            self.steps_done += 1
            self.progress.steps += 1
            if step.loss is None:
                self.totals["skipped"] += 1
            else:
                self.totals["loss"] += step.loss
                self.totals["steps"] += 1
                self.after_step()
            if self.iteration % args.log_steps == 0 or self.iteration == self.steps_per_epoch:
                self._report(step)
            if args.save_steps and self.steps_done % args.save_steps == 0 and self.iteration < self.steps_per_epoch:
                self._save()
            if self._out_of_steps():
                return

    def _groups(self) -> Iterator[list[tuple]]:
        """The micro-batches of each optimizer step, on the device; the last group of an epoch may be smaller."""
        group = []
        start = time.perf_counter()
        for batch in self.loader:
            self.progress.waited += time.perf_counter() - start
            warn_of_corrupt(self.corrupt.add(batch.unreadable[batch.unreadable >= 0].tolist()))
            group.append(self.micro_batch(batch))
            if len(group) == self.args.accum_iter:
                yield group
                group = []
            start = time.perf_counter()
        if group:
            yield group

    def _report(self, step: Step) -> None:
        speed = self.progress.report(self.steps_done)
        memory = peak_memory_bytes(self.device)
        if step.loss is None or not self.world.is_main:
            return
        logger.info(
            "epoch %d step %d/%d  loss %.4f  lr %.3g  grad %.3g  %.1f images/s  data wait %.0f%%  %.0f MB  ETA %s",
            self.epoch,
            self.iteration,
            self.steps_per_epoch,
            step.loss,
            self.lr,
            step.grad_norm,
            speed["images_per_second"],
            100 * speed["data_wait"],
            memory / 1e6,
            timedelta(seconds=round(speed["eta_seconds"])),
        )
        values = {"train/loss": step.loss, "train/lr": self.lr, "train/grad_norm": step.grad_norm}
        self.writer.scalars(values | {f"speed/{k}": v for k, v in speed.items()}, self.steps_done)

    def _end_epoch(self, seconds: float) -> None:
        """Evaluation, results, pictures and the checkpoint of the epoch that has just ended."""
        self._share_corrupt()
        totals = self.totals
        results = {
            "epoch": self.epoch,
            "train_loss": totals["loss"] / max(totals["steps"], 1),
            "skipped_steps": totals["skipped"],
            "corrupt_images": len(self.corrupt.indices),
            "lr": self.lr,
            "precision": str(self.stepper.precision),
            "seconds": round(seconds, 3),
            "peak_memory_mb": round(peak_memory_bytes(self.device) / 1e6, 1),
        }
        self.epoch, self.iteration = self.epoch + 1, 0
        self.totals = {"loss": 0.0, "steps": 0, "skipped": 0}
        evaluated = self.evaluate()
        results |= evaluated
        if self.world.is_main:
            self.writer.epoch(results)
            shown = {"train_loss": results["train_loss"], **evaluated}
            self.writer.scalars({f"epoch/{name}": value for name, value in shown.items()}, self.epoch)
            self.picture()
        logger.info(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in results.items()))
        if self.epoch % self.args.save_epochs == 0:
            self._save()
        self.progress.reset()

    def _share_corrupt(self) -> None:
        """Every process takes note of the images that any of them could not read."""
        warn_of_corrupt(self.corrupt.add(set().union(*self.world.gather(self.corrupt.indices))))

    def _save(self) -> None:
        """Writes a checkpoint from which the run continues as if it had not stopped."""
        self._share_corrupt()
        rng = self.world.gather(get_rng_state(self.device))
        self.steps_saved = self.steps_done
        if not self.world.is_main:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "stepper": self.stepper.state_dict(),
            "epoch": self.epoch,
            "iteration": self.iteration,
            "step": self.steps_done,
            "effective_batch": self.effective_batch,
            "images": len(self.loader.dataset),
            "totals": self.totals,
            "corrupt": sorted(self.corrupt.indices),
            "rng": rng,
            "args": vars(self.args),
            **self.extra_state(),
        }
        logger.info("Saved %s", self.checkpoints.save(state, self.steps_done))
        self.export_weights(state)


def warn_of_corrupt(names: Iterable[str]) -> None:
    for name in names:
        logger.warning("Cannot read %s; the next image takes its place.", name)
