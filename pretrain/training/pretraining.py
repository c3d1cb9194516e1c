"""The parts of a pretraining run: model, images, held-out loss and pictures."""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch.utils.data import DataLoader, Dataset

from pretrain.common.distributed import World, in_world
from pretrain.common.errors import UserError
from pretrain.common.files import replacing, save_atomically
from pretrain.data.datasets import CorruptImages, ImageDataset, MaskedSample
from pretrain.data.pixels import images_on
from pretrain.data.readers import open_reader
from pretrain.data.samplers import StatelessSampler, train_loader
from pretrain.data.transforms import eval_transform, image_mode, train_transform
from pretrain.evaluation.reconstruction import mean_losses, reconstruction_picture
from pretrain.evaluation.targets import warn_of_flat_targets
from pretrain.models import MaskedAutoencoderConvViT, build_model
from pretrain.models.autoencoder import encoder_weights
from pretrain.models.encoder import MASKINGS
from pretrain.training.metrics import MetricWriter
from pretrain.training.neighbour_probe import NeighbourProbe
from pretrain.training.parts import MakeParts, TrainingParts
from pretrain.training.precision import Precision
from pretrain.training.run import train
from pretrain.training.state import initialise_model
from pretrain.training.targets import Targets

__all__ = ["make_model", "pretraining_parts", "run"]

PICTURE_ROWS = 4


def run(args: argparse.Namespace, make_parts: MakeParts | None = None) -> None:
    """Runs pretraining in this process, one of those torchrun started or the only one.

    Args:
        make_parts: of the task; :func:`pretraining_parts` by default.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
        NonFiniteError: losses stayed non-finite.
    """
    in_world(args.device, lambda world, device: train(args, world, device, make_parts or pretraining_parts))


def pretraining_parts(args: argparse.Namespace, world: World, device: torch.device, initialise: bool) -> TrainingParts:
    """The parts of ConvMAE or FastConvMAE pretraining.

    Args:
        args: those of :func:`pretrain.training.args.parse_args`, with learning rate, precision and decoder filled in.
        initialise: load `--init_weights`.

    Raises:
        FileNotFoundError, UserError: arguments, data or weights that cannot be used.
    """
    model = make_model(args)
    targets = Targets(args, model)
    images = _seeded_images(args, model, open_reader(args.data_path), train=True)
    pin_memory, window = device.type == "cuda", args.shard_window
    loader = train_loader(images, args.batch_size, args.num_workers, world, pin_memory, shard_window=window)
    held_out = _held_out_loader(args, model, world)
    shown = held_out.dataset if held_out is not None else _seeded_images(args, model, images.reader, train=False)
    pictures = Pictures(args, model, shown, world)
    if args.norm_pix_loss and targets.has_pixels and world.is_main:
        warn_of_flat_targets(model, shown)
    if initialise:
        initialise_model(model, args.init_weights)
    model.to(device)
    loss = targets.make_loss(device)
    precision = Precision(args.amp, device, model, args.fp32_decoder)
    groups = param_groups_weight_decay(model, args.weight_decay)
    exported = Path(args.output_dir) / "encoder.pth"
    probe = NeighbourProbe(args, model, world, device, precision) if args.probe else None

    def inputs(batch: MaskedSample) -> tuple[torch.Tensor, float, torch.Tensor]:
        return images_on(batch.image, device), args.mask_ratio, batch.noise.to(device, non_blocking=True)

    def evaluate(epoch: int) -> dict[str, float]:
        results: dict[str, float] = {}
        if held_out is not None:
            model.eval()
            results = mean_losses(loss, held_out, args.mask_ratio, world, device, precision.autocast)
        return results | (probe.evaluate(epoch) if probe else {})

    return TrainingParts(
        model=model,
        loader=loader,
        corrupt=CorruptImages(images, args.max_corrupt),
        loss=loss,
        loss_names=targets.loss_names,
        optimizer=torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=device.type == "cuda"),
        precision=precision,
        inputs=inputs,
        set_training_mode=model.train,
        start=targets.start,
        after_step=targets.after_step,
        evaluate_start=probe.measure if probe else None,
        evaluate=evaluate,
        draw=(lambda epoch, writer: pictures.draw(epoch, writer, device, precision)) if targets.has_pixels else None,
        export=partial(export_encoder, exported),
        exports=[exported],
        extras=[targets],
    )


def make_model(args: argparse.Namespace) -> MaskedAutoencoderConvViT:
    model = build_model(
        args.model,
        img_size=args.input_size,
        in_chans=args.in_chans,
        patch_size=args.patch_size,
        mlp_ratio=args.mlp_ratio,
        norm_pix_loss=args.norm_pix_loss,
        act_checkpoint=args.act_checkpoint,
    )
    assert isinstance(model, MaskedAutoencoderConvViT)
    MASKINGS[model.masking](torch.zeros(1, _num_patches(model)), args.mask_ratio)  # raises on a bad ratio
    return model


def _num_patches(model: MaskedAutoencoderConvViT) -> int:
    return model.grid_size[0] * model.grid_size[1]


def _seeded_images(args: argparse.Namespace, model: MaskedAutoencoderConvViT, reader: Any, train: bool) -> ImageDataset:
    """A reader's images with the noise of their masks: augmented for training, or the same in every epoch."""
    transform = (train_transform if train else eval_transform)(model.img_size)
    # A seed apart, so that held-out masks are not those of the first epoch.
    seed = args.seed if train else args.seed + 1
    return ImageDataset(reader, transform, _num_patches(model), seed, image_mode(args.in_chans), args.decoder)


def _held_out_loader(args: argparse.Namespace, model: MaskedAutoencoderConvViT, world: World) -> DataLoader | None:
    """The `val` images, if there are any."""
    if not (Path(args.data_path) / "val").is_dir():
        return None
    images = _seeded_images(args, model, open_reader(args.data_path, "val"), train=False)
    if len(images) < world.size:
        raise UserError(
            f"{args.data_path}/val holds {len(images)} image(s), fewer than the {world.size} processes "
            "that share them; add images, or rename the folder to train without a held-out loss."
        )
    sampler = StatelessSampler(len(images), world, args.seed, shuffle=False)
    return DataLoader(
        images, args.batch_size, sampler=sampler, num_workers=args.num_workers, generator=torch.Generator()
    )


class Pictures:
    """Reconstructions of the same few images in the course of training, drawn by the main process."""

    def __init__(self, args: argparse.Namespace, model: MaskedAutoencoderConvViT, images: Dataset, world: World):
        assert isinstance(images, ImageDataset)
        self.args, self.model = args, model
        count = min(PICTURE_ROWS, len(images)) if world.is_main else 0
        self.samples = [images[0, i] for i in range(count)]

    def draw(self, epoch: int, writer: MetricWriter, device: torch.device, precision: Precision) -> None:
        """A picture of the model as it is, in every `--picture_epochs`-th epoch and the last one."""
        args = self.args
        if epoch < args.epochs and epoch % args.picture_epochs:
            return
        imgs = images_on(torch.stack([sample.image for sample in self.samples]), device)
        noise = torch.stack([sample.noise for sample in self.samples]).to(device)
        with precision.autocast():
            picture = reconstruction_picture(self.model, imgs, args.mask_ratio, noise)
        path = Path(args.output_dir) / "reconstructions" / f"epoch-{epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            picture.save(temporary)
        writer.picture(picture, epoch)


def export_encoder(path: Path, state: Mapping[str, Any]) -> None:
    """Writes the encoder of a checkpoint, which fine-tuning and detectors start from."""
    content = {"model": encoder_weights(state["model"]), "args": state["args"], "step": state["step"]}
    save_atomically(content, path)
