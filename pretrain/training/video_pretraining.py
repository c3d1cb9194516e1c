"""The parts of a pretraining run on clips: model, videos, held-out loss and pictures."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch.utils.data import DataLoader

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.files import replacing
from pretrain.data.datasets import CorruptImages
from pretrain.data.labelled import frame_sampler
from pretrain.data.samplers import StatelessSampler, train_loader
from pretrain.data.transforms import image_mode
from pretrain.data.video.datasets import ClipNotes, EvenViews, MaskedClip, MaskedClips, RandomClip
from pretrain.data.video.lists import find_list
from pretrain.data.video.readers import open_videos
from pretrain.data.video.transforms import train_clips
from pretrain.evaluation.reconstruction import mean_losses
from pretrain.evaluation.video_reconstruction import contact_sheet, reconstruct
from pretrain.models import VideoConvMAE, build_model
from pretrain.models.autoencoder import ReconstructionLoss
from pretrain.models.video.masking import num_visible_tubes
from pretrain.training.metrics import MetricWriter
from pretrain.training.neighbour_probe import NeighbourProbe
from pretrain.training.parts import TrainingParts
from pretrain.training.precision import Precision
from pretrain.training.pretraining import export_encoder
from pretrain.training.state import initialise_model

__all__ = ["make_video_model", "video_pretraining_parts"]

PICTURE_CLIPS = 2


def video_pretraining_parts(
    args: argparse.Namespace, world: World, device: torch.device, initialise: bool
) -> TrainingParts:
    """The parts of VideoConvMAE pretraining.

    Args:
        args: those of :func:`pretrain.training.args.parse_args`, with learning rate and precision filled in.
        initialise: load `--init_weights`.

    Raises:
        FileNotFoundError, UserError: arguments, data or weights that cannot be used.
    """
    model = make_video_model(args)
    reader = open_videos(args.data_path, "train", args.video_root)
    clips = _training_clips(args, model, reader)
    loader = train_loader(clips, args.batch_size, args.num_workers, world, pin_memory=device.type == "cuda")
    held_out = _held_out_loader(args, model, world)
    shown = held_out.dataset if held_out is not None else _even_clips(args, model, reader)
    assert isinstance(shown, MaskedClips)
    pictures = ClipPictures(args, model, shown, world)
    if initialise:
        initialise_model(model, args.init_weights)
    model.to(device)
    precision = Precision(args.amp, device, model, args.fp32_decoder)
    groups = param_groups_weight_decay(model, args.weight_decay)
    exported = Path(args.output_dir) / "encoder.pth"
    probe = NeighbourProbe(args, model, world, device, precision) if args.probe else None
    notes = ClipNotes(clips, world)
    loss = ReconstructionLoss(model)

    def evaluate(epoch: int) -> dict[str, float]:
        results: dict[str, float] = dict(notes.counts())
        if held_out is not None:
            model.eval()
            results |= mean_losses(loss, held_out, args.mask_ratio, world, device, precision.autocast)
        return results | (probe.evaluate(epoch) if probe else {})

    return TrainingParts(
        model=model,
        loader=loader,
        corrupt=CorruptImages(clips, args.max_corrupt),
        loss=loss,
        optimizer=torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=device.type == "cuda"),
        precision=precision,
        inputs=partial(_inputs, notes, args.mask_ratio, device),
        set_training_mode=model.train,
        evaluate_start=probe.measure if probe else None,
        evaluate=evaluate,
        draw=lambda epoch, writer: pictures.draw(epoch, writer, device, precision),
        export=partial(export_encoder, exported),
        exports=[exported],
        extras=[notes],
    )


def _inputs(
    notes: ClipNotes, mask_ratio: float, device: torch.device, batch: MaskedClip
) -> tuple[torch.Tensor, float, torch.Tensor]:
    """What the loss is called with; takes note of peculiar videos."""
    notes.add(batch)
    return batch.image.to(device, non_blocking=True), mask_ratio, batch.noise.to(device, non_blocking=True)


def make_video_model(args: argparse.Namespace) -> VideoConvMAE:
    image_mode(args.in_chans)  # raises on channels that no file has
    clip = ("num_frames", "tubelet_size", "conv_frames", "multi_scale")
    own = (*clip, "in_chans", "patch_size", "mlp_ratio", "norm_pix_loss")
    model = build_model(
        args.model,
        img_size=args.input_size,
        act_checkpoint=args.act_checkpoint,
        **{name: getattr(args, name) for name in own},
    )
    assert isinstance(model, VideoConvMAE)
    num_visible_tubes(_num_patches(model), args.mask_ratio)  # raises on a bad ratio
    return model


def _num_patches(model: VideoConvMAE) -> int:
    return model.grid_size[0] * model.grid_size[1]


def _training_clips(args: argparse.Namespace, model: VideoConvMAE, reader: Any) -> MaskedClips:
    views = RandomClip(frame_sampler(args), train_clips(model.img_size, args.in_chans, args.flip))
    return MaskedClips(reader, views, _num_patches(model), args.seed, args.in_chans)


def _even_clips(args: argparse.Namespace, model: VideoConvMAE, reader: Any) -> MaskedClips:
    """The middle clip of each video, with the same tubes in every epoch, which are not those of the first."""
    views = EvenViews(frame_sampler(args), model.img_size, args.in_chans)
    return MaskedClips(reader, views, _num_patches(model), args.seed + 1, args.in_chans)


def _held_out_loader(args: argparse.Namespace, model: VideoConvMAE, world: World) -> DataLoader | None:
    """The `val` videos, if there are any."""
    path = Path(args.data_path)
    if not path.is_dir() or not ((path / "val").is_dir() or find_list(path, "val")):
        return None
    clips = _even_clips(args, model, open_videos(args.data_path, "val", args.video_root))
    if len(clips) < world.size:
        raise UserError(
            f"The held-out videos of {path} are {len(clips)}, fewer than the {world.size} processes that share them; "
            "add some, or rename val to train without a held-out loss."
        )
    sampler = StatelessSampler(len(clips), world, args.seed, shuffle=False)
    return DataLoader(
        clips, args.batch_size, sampler=sampler, num_workers=args.num_workers, generator=torch.Generator()
    )


class ClipPictures:
    """Reconstructions of the same few clips in the course of training, drawn by the main process."""

    def __init__(self, args: argparse.Namespace, model: VideoConvMAE, clips: MaskedClips, world: World):
        self.args, self.model = args, model
        count = min(PICTURE_CLIPS, len(clips)) if world.is_main else 0
        self.samples = [clips[0, i] for i in range(count)]

    def draw(self, epoch: int, writer: MetricWriter, device: torch.device, precision: Precision) -> None:
        """A picture of the model as it is, in every `--picture_epochs`-th epoch and the last one."""
        args = self.args
        if epoch < args.epochs and epoch % args.picture_epochs:
            return
        clips, noise = (torch.stack([getattr(s, n) for s in self.samples]).to(device) for n in ("image", "noise"))
        with precision.autocast():
            picture = contact_sheet(reconstruct(self.model, clips, args.mask_ratio, noise))
        path = Path(args.output_dir) / "reconstructions" / f"epoch-{epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            picture.save(temporary)
        writer.picture(picture, epoch)
