"""A pretraining run from its arguments: model, data, held-out loss and pictures."""

import argparse
from pathlib import Path

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.utils.data import DataLoader

from pretrain.common.distributed import in_world
from pretrain.common.errors import UserError
from pretrain.common.files import replacing, save_atomically
from pretrain.data.datasets import CorruptImages, ImageDataset, Sample
from pretrain.data.readers import open_reader
from pretrain.data.samplers import StatelessSampler, train_loader
from pretrain.data.transforms import eval_transform, image_mode, train_transform
from pretrain.evaluation.reconstruction import reconstruction_picture
from pretrain.models import build_model
from pretrain.models.autoencoder import DECODER_PREFIXES, MASKINGS, ReconstructionLoss
from pretrain.training.loop import TrainingRun
from pretrain.training.state import load_weights

__all__ = ["Trainer", "run"]

PICTURE_ROWS = 4


def run(args: argparse.Namespace) -> None:
    """Runs pretraining in this process, one of those torchrun started or the only one.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
        NonFiniteError: losses stayed non-finite.
    """
    in_world(args.device, lambda world, device: Trainer(args, world, device).train())


class Trainer(TrainingRun):
    """ConvMAE or FastConvMAE pretraining."""

    def build(self) -> None:
        args = self.args
        self.model = build_model(
            args.model,
            img_size=args.input_size,
            in_chans=args.in_chans,
            patch_size=args.patch_size,
            norm_pix_loss=args.norm_pix_loss,
            act_checkpoint=args.act_checkpoint,
        )
        self.num_patches = self.model.grid_size[0] * self.model.grid_size[1]
        MASKINGS[self.model.masking](torch.zeros(1, self.num_patches), args.mask_ratio)  # raises on a bad ratio
        self._open_data()

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
                raise UserError(
                    f"{args.data_path}/val holds {len(held_out)} image(s), fewer than the {self.world.size} processes "
                    "that share them; add images, or rename the folder to train without a held-out loss."
                )
            sampler = StatelessSampler(len(held_out), self.world, args.seed, shuffle=False)
            self.held_out = DataLoader(
                held_out, args.batch_size, sampler=sampler, num_workers=args.num_workers, generator=torch.Generator()
            )
        pictured = self.held_out.dataset if self.held_out else ImageDataset(dataset.reader, transform, **evaluated)
        self.pictured = [pictured[0, i] for i in range(min(PICTURE_ROWS, len(pictured)))] if self.world.is_main else []

    def load_initial_weights(self) -> None:
        load_weights(self.model, self.args.init_weights)

    def make_loss_module(self) -> nn.Module:
        return ReconstructionLoss(self.model)

    def make_optimizer(self) -> torch.optim.Optimizer:
        groups = param_groups_weight_decay(self.model, self.args.weight_decay)
        return torch.optim.AdamW(groups, lr=self.args.lr, betas=(0.9, 0.95), fused=self.device.type == "cuda")

    def micro_batch(self, batch: Sample) -> tuple[torch.Tensor, float, torch.Tensor]:
        imgs, noise = (t.to(self.device, non_blocking=True) for t in (batch.image, batch.noise))
        return imgs, self.args.mask_ratio, noise

    def evaluate(self) -> dict[str, float]:
        return {"val_loss": self._held_out_loss()} if self.held_out else {}

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

    def picture(self) -> None:
        if self.epoch < self.args.epochs and self.epoch % self.args.picture_epochs:
            return
        imgs, noise = (torch.stack([s[i] for s in self.pictured]).to(self.device) for i in (0, 1))
        with self.stepper.precision.autocast():
            picture = reconstruction_picture(self.model, imgs, self.args.mask_ratio, noise)
        path = self.output_dir / "reconstructions" / f"epoch-{self.epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            picture.save(temporary)
        self.writer.picture(picture, self.epoch)

    def export_weights(self, state: dict) -> None:
        encoder = {name: t for name, t in state["model"].items() if not name.startswith(DECODER_PREFIXES)}
        save_atomically({"model": encoder, "args": state["args"]}, self.output_dir / "encoder.pth")
