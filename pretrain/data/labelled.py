"""Labelled samples of whichever kind the arguments of a command ask for: images, or clips for a video model."""

import argparse
from typing import Any

from pretrain.data.augmentation import finetune_transform
from pretrain.data.labels import LabelledImages, open_labelled
from pretrain.data.transforms import evaluation_pixels, image_mode, train_transform
from pretrain.data.video.datasets import EvenViews, LabelledClips, RandomClip
from pretrain.data.video.readers import open_labelled_videos
from pretrain.data.video.sampling import FrameSampler
from pretrain.data.video.transforms import finetune_clips

__all__ = [
    "LabelledSamples",
    "evaluation_samples",
    "finetuning_samples",
    "frame_sampler",
    "is_video",
    "open_split",
    "probing_samples",
]

LabelledSamples = LabelledImages | LabelledClips


def is_video(args: argparse.Namespace) -> bool:
    """Whether the arguments are of a video model: only these have options of clips."""
    return hasattr(args, "num_frames")


def frame_sampler(args: argparse.Namespace) -> FrameSampler:
    return FrameSampler(args.num_frames, args.sampling, args.frame_step)


def open_split(args: argparse.Namespace, split: str) -> Any:
    """A reader of one of the two splits of `--data_path`.

    Raises:
        FileNotFoundError, UserError: data that cannot be used.
    """
    if not is_video(args):
        return open_labelled(args.data_path, split)
    other = args.val_split if split == args.train_split else args.train_split
    return open_labelled_videos(args.data_path, split, other, args.video_root)


def evaluation_samples(args: argparse.Namespace, reader: Any, clips: int = 1, crops: int = 1) -> LabelledSamples:
    """Without randomness, and an unreadable one is an error.

    Args:
        clips, crops: views of each video.
    """
    mode = image_mode(args.in_chans)
    if is_video(args):
        views = EvenViews(frame_sampler(args), args.input_size, args.in_chans, clips, crops)
        return LabelledClips(reader, views, args.seed, args.in_chans, replace=False)
    transform = evaluation_pixels(args.input_size, args.crop_pct)
    return LabelledImages(reader, transform, args.seed, mode, replace=False, decoder=args.decoder)


def finetuning_samples(args: argparse.Namespace, reader: Any) -> LabelledSamples:
    """Augmented for fine-tuning."""
    mode = image_mode(args.in_chans)
    if is_video(args):
        transform = finetune_clips(args.input_size, args.in_chans, args.flip, args.aa, args.crop_min, args.reprob)
        return LabelledClips(reader, RandomClip(frame_sampler(args), transform), args.seed, args.in_chans)
    image_transform = finetune_transform(
        args.input_size, args.in_chans, args.aa, args.crop_min, args.color_jitter, args.reprob
    )
    return LabelledImages(reader, image_transform, args.seed, mode, decoder=args.decoder)


def probing_samples(args: argparse.Namespace, reader: Any) -> LabelledSamples:
    """For the linear probe: with random crops and flips, or with `--no-augment` as in evaluation."""
    if not args.augment:
        return evaluation_samples(args, reader)
    if is_video(args):
        transform = finetune_clips(args.input_size, args.in_chans, args.flip, "none", args.crop_min, 0.0)
        return LabelledClips(reader, RandomClip(frame_sampler(args), transform), args.seed, args.in_chans)
    image_transform = train_transform(args.input_size, args.crop_min)
    return LabelledImages(reader, image_transform, args.seed, image_mode(args.in_chans), decoder=args.decoder)
