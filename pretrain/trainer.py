"""A pretraining run from its arguments: set-up, epochs, held-out loss, pictures, checkpoints."""

import argparse
import json
import logging
import random
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from pretrain.autoencoder import MASKINGS, ReconstructionLoss
from pretrain.data import (
    CorruptImages,
    ImageDataset,
    StatelessSampler,
    eval_transform,
    image_mode,
    open_reader,
    train_loader,
    train_transform,
)
from pretrain.distributed import World, join_world, leave_world
from pretrain.engine import Stepper
from pretrain.metrics import MetricWriter, Progress, peak_memory_bytes
from pretrain.models import build_model
from pretrain.precision import Precision
from pretrain.schedule import effective_batch_size, learning_rate, scaled_learning_rate
from pretrain.training_state import Checkpoints, get_rng_state, load_run_weights, load_weights, set_rng_state
from pretrain.visualize import reconstruction_picture

__all__ = ["Trainer", "run"]

logger = logging.getLogger(__name__)

PICTURE_ROWS = 4


def run(args: argparse.Namespace) -> None:
    """Runs pretraining in this process, one of those torchrun started or the only one.

    Raises:
        FileNotFoundError, ValueError: arguments, data or files that cannot be used.
        NonFiniteError: losses stayed non-finite.
    """
    world, device = join_world(args.device)
    if not world.is_main:
        logging.getLogger("pretrain").setLevel(logging.ERROR)
    try:
        Trainer(args, world, device).train()
    finally:
        leave_world()


class Trainer:
    """Everything a run consists of; made from the arguments, then `train` is called once."""

    def __init__(self, args: argparse.Namespace, world: World, device: torch.device):
        self.args, self.world, self.device = args, world, device
        seed_everything(args.seed + world.rank)
        self.output_dir = Path(args.output_dir)
        self.checkpoints = Checkpoints(self.output_dir, args.keep_checkpoints)
        resume_from = self._find_checkpoint()
        state = load_run_weights(resume_from, args) if resume_from else None

        self.model = build_model(
            args.model,
            img_size=args.input_size,
            in_chans=args.in_chans,
            norm_pix_loss=args.norm_pix_loss,
            act_checkpoint=args.act_checkpoint,
        )
        self.num_patches = self.model.grid_size[0] * self.model.grid_size[1]
        MASKINGS[self.model.masking](torch.zeros(1, self.num_patches), args.mask_ratio)  # raises on a bad ratio
        self._open_data()
        self._derive_schedule()
        if args.init_weights and not state:
            load_weights(self.model, args.init_weights)
        self.model.to(device)
        self._make_stepper()
        self.epoch = self.iteration = self.steps_done = self.steps_saved = 0
        self.totals = {"loss": 0.0, "steps": 0, "skipped": 0}
        if state:
            self._restore(state, resume_from)
        self.output_dir.mkdir(parents=True, exist_ok=True)

    def _find_checkpoint(self) -> Path | None:
        found = self.checkpoints.find(self.args.resume)
        everywhere = sorted({str(path or "none") for path in self.world.gather(found)})
        if len(everywhere) > 1:
            raise ValueError(
                f"The processes would resume from different checkpoints ({', '.join(everywhere)}): --output_dir "
                f"{self.output_dir} must be a folder that all nodes share."
            )
        return found

    def _open_data(self) -> None:
        args = self.args
        size, mode = self.model.img_size, image_mode(args.in_chans)
        dataset = ImageDataset(
            open_reader(args.data_path), train_transform(size, args.in_chans), self.num_patches, args.seed, mode
        )
        self.loader = train_loader(
            dataset, args.batch_size, args.num_workers, self.world, pin_memory=self.device.type == "cuda"
        )
        self.corrupt = CorruptImages(dataset, args.max_corrupt)
        # A seed apart, so that held-out masks are not those of the first epoch.
        evaluated = dict(noise_size=self.num_patches, seed=args.seed + 1, mode=mode)
        transform = eval_transform(size, args.in_chans)
        self.held_out = None
        if (Path(args.data_path) / "val").is_dir():
            held_out = ImageDataset(open_reader(args.data_path, "val"), transform, **evaluated)
            if len(held_out) < self.world.size:
                raise ValueError(
                    f"{args.data_path}/val holds {len(held_out)} image(s), fewer than the {self.world.size} processes "
                    "that share them; add images, or rename the folder to train without a held-out loss."
                )
            sampler = StatelessSampler(len(held_out), self.world, args.seed, shuffle=False)
            self.held_out = DataLoader(
                held_out, args.batch_size, sampler=sampler, num_workers=args.num_workers, generator=torch.Generator()
            )
        pictured = self.held_out.dataset if self.held_out else ImageDataset(dataset.reader, transform, **evaluated)
        self.pictured = [pictured[0, i] for i in range(min(PICTURE_ROWS, len(pictured)))] if self.world.is_main else []

    def _derive_schedule(self) -> None:
        """Works out steps and learning rate, and says so before anything else runs."""
        args = self.args
        self.effective_batch = effective_batch_size(args.batch_size, args.accum_iter, self.world.size)
        if args.lr is None:
            args.lr = scaled_learning_rate(args.blr, self.effective_batch)
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
            has_bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            args.amp = "bf16" if has_bf16 else "off"
        loss_module = ReconstructionLoss(self.model)
        if args.compile:
            loss_module = torch.compile(loss_module)
        if self.world.size > 1:
            loss_module = DistributedDataParallel(
                loss_module, device_ids=[self.device.index] if self.device.type == "cuda" else None
            )
        groups = param_groups_weight_decay(self.model, args.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=self.device.type == "cuda")
        precision = Precision(args.amp, self.device, self.model, args.fp32_decoder)
        self.stepper = Stepper(loss_module, optimizer, precision, self.world, args.clip_grad, args.max_failures)

    def _restore(self, state: dict, path: Path) -> None:
        self.epoch, self.iteration, self.steps_done = state["epoch"], state["iteration"], state["step"]
        self.totals, self.steps_saved = dict(state["totals"]), self.steps_done
        self.checkpoints.check_newest(path, self.steps_done)
        if self.epoch >= self.args.epochs:
            raise ValueError(
                f"Nothing is left to train: {path} is at epoch {self.epoch} of {self.args.epochs}; raise --epochs to "
                "go on."
            )
        if self.iteration and state["effective_batch"] != self.effective_batch:
            raise ValueError(
                f"{path} is in the middle of an epoch, after {self.iteration} steps of effective batch "
                f"{state['effective_batch']}, which are other images than as many of {self.effective_batch}; resume "
                "with the same --batch_size x --accum_iter x processes, or from the end of an epoch."
            )
        self.model.load_state_dict(state["model"])
        self.stepper.optimizer.load_state_dict(state["optimizer"])
        self.stepper.load_state_dict(state["stepper"])
        self.corrupt.indices = set(state["corrupt"])
        if len(state["rng"]) == self.world.size:
            set_rng_state(state["rng"][self.world.rank], self.device)
        logger.info("Resumed %s at epoch %d, step %d of it.", path, self.epoch, self.iteration)

    def train(self) -> None:
        """Trains to the last epoch, or to `--max_steps`."""
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

    def _out_of_steps(self) -> bool:
        return bool(self.args.max_steps) and self.steps_done >= self.args.max_steps

    def _train_epoch(self) -> None:
        """The steps of the present epoch that are still to be done."""
        args = self.args
        self.model.train()
        self.loader.sampler.set_position(self.epoch, self.iteration * args.accum_iter * args.batch_size)
        for group in self._groups():
            lr = learning_rate(
                self.epoch + self.iteration / self.steps_per_epoch,
                lr=args.lr,
                min_lr=args.min_lr,
                warmup_epochs=args.warmup_epochs,
                epochs=args.epochs,
            )
            for parameters in self.stepper.optimizer.param_groups:
                parameters["lr"] = lr
            step = self.stepper.step(group)
            self.iteration += 1
            self.steps_done += 1
            self.progress.steps += 1
            if step.loss is None:
                self.totals["skipped"] += 1
            else:
                self.totals["loss"] += step.loss
                self.totals["steps"] += 1
            if self.iteration % args.log_steps == 0 or self.iteration == self.steps_per_epoch:
                self._report(step, lr)
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
            imgs, noise = (t.to(self.device, non_blocking=True) for t in (batch.image, batch.noise))
            group.append((imgs, self.args.mask_ratio, noise))
            if len(group) == self.args.accum_iter:
                yield group
                group = []
            start = time.perf_counter()
        if group:
            yield group

    def _report(self, step, lr: float) -> None:
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
            lr,
            step.grad_norm,
            speed["images_per_second"],
            100 * speed["data_wait"],
            memory / 1e6,
            timedelta(seconds=round(speed["eta_seconds"])),
        )
        values = {"train/loss": step.loss, "train/lr": lr, "train/grad_norm": step.grad_norm}
        self.writer.scalars(values | {f"speed/{k}": v for k, v in speed.items()}, self.steps_done)

    def _end_epoch(self, seconds: float) -> None:
        """Held-out loss, results, pictures and the checkpoint of the epoch that has just ended."""
        self._share_corrupt()
        totals, epoch = self.totals, self.epoch
        results = {
            "epoch": epoch,
            "train_loss": totals["loss"] / max(totals["steps"], 1),
            "skipped_steps": totals["skipped"],
            "corrupt_images": len(self.corrupt.indices),
            "lr": self.stepper.optimizer.param_groups[0]["lr"],
            "precision": str(self.stepper.precision),
            "seconds": round(seconds, 3),
            "peak_memory_mb": round(peak_memory_bytes(self.device) / 1e6, 1),
        }
        if self.held_out:
            results["val_loss"] = self._held_out_loss()
        self.epoch, self.iteration = epoch + 1, 0
        self.totals = {"loss": 0.0, "steps": 0, "skipped": 0}
        last = self.epoch == self.args.epochs
        if self.world.is_main:
            self.writer.epoch(results)
            self.writer.scalars(
                {f"epoch/{k}": results[k] for k in ("train_loss", "val_loss") if k in results}, self.epoch
            )
            if last or self.epoch % self.args.picture_epochs == 0:
                self._draw()
        logger.info(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in results.items()))
        if self.epoch % self.args.save_epochs == 0:
            self._save()
        self.progress.reset()

    def _share_corrupt(self) -> None:
        """Every process takes note of the images that any of them could not read."""
        warn_of_corrupt(self.corrupt.add(set().union(*self.world.gather(self.corrupt.indices))))

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """Mean loss over the `val` images, with the same crops and masks every time."""
        self.model.eval()
        total, count = torch.zeros((), device=self.device), 0
        for batch in self.held_out:
            imgs, noise = batch.image.to(self.device), batch.noise.to(self.device)
            with self.stepper.precision.autocast():
                total += self.model.forward_loss(imgs, self.args.mask_ratio, noise) * len(imgs)
            count += len(imgs)
        return self.world.mean(total / count).item()

    def _draw(self) -> None:
        imgs, noise = (torch.stack([s[i] for s in self.pictured]).to(self.device) for i in (0, 1))
        with self.stepper.precision.autocast():
            picture = reconstruction_picture(self.model, imgs, self.args.mask_ratio, noise)
        path = self.output_dir / "reconstructions" / f"epoch-{self.epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        self.writer.picture(picture, self.epoch)

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
            "totals": self.totals,
            "corrupt": sorted(self.corrupt.indices),
            "rng": rng,
            "args": vars(self.args),
        }
        logger.info("Saved %s", self.checkpoints.save(state, self.steps_done))


def warn_of_corrupt(names: Iterable[str]) -> None:
    for name in names:
        logger.warning("Cannot read %s; the next image takes its place.", name)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
