"""Command-line options of video models, and the recipes behind their defaults."""

import argparse
from argparse import _ArgumentGroup as Group
from collections.abc import Mapping, Sequence
from typing import Any

from pretrain.common.errors import UserError
from pretrain.names import POSITIONS, SAMPLINGS, VIDEO_CLASSIFIERS, VIDEO_MODELS

__all__ = [
    "FINETUNE_CLIPS",
    "PRETRAIN_CLIPS",
    "PROBE_CLIPS",
    "RECIPES",
    "add_clip_arguments",
    "add_clip_classifier_arguments",
    "parse_with_recipe",
]

RECIPES = ("k400", "ssv2")
_CLIP = dict(num_frames=16, tubelet_size=2, conv_frames=1, video_root="")

# VideoMAE (arXiv:2203.12602), tables of its appendix. Batch sizes are per process; its effective ones are 1024 and 512.
# The number of epochs is that of its ablations.
_PRETRAIN = _CLIP | dict(
    mask_ratio=0.9, multi_scale=True, sampling="dense", blr=1.5e-4, epochs=800, warmup_epochs=40.0, batch_size=16
)
PRETRAIN_CLIPS: dict[str, dict[str, Any]] = {
    "k400": _PRETRAIN | dict(frame_step=4, flip=True),
    "ssv2": _PRETRAIN | dict(frame_step=2, flip=False),
}
_CLASSIFY = _CLIP | dict(positions="learned")
_TEST: dict[str, dict[str, Any]] = {
    "k400": _CLASSIFY | dict(sampling="dense", frame_step=4, flip=True, test_clips=5, test_crops=3),
    "ssv2": _CLASSIFY | dict(sampling="segments", frame_step=1, flip=False, test_clips=2, test_crops=3),
}
_FINETUNE = dict(batch_size=64, layer_decay=0.75, drop_path=0.1, aa="rand-m7-n4-mstd0.5-inc1")
FINETUNE_CLIPS: dict[str, dict[str, Any]] = {
    "k400": _TEST["k400"] | _FINETUNE | dict(blr=1e-3, epochs=100),
    "ssv2": _TEST["ssv2"] | _FINETUNE | dict(blr=5e-4, epochs=50),
}
# No published recipe; frames as in fine-tuning, the rest as for images.
PROBE_CLIPS: dict[str, dict[str, Any]] = {name: options | dict(batch_size=16) for name, options in _TEST.items()}

IMAGE_OPTIONS: dict[str, Any] = {
    **{"global_pool": True, "crop_pct": None, "color_jitter": 0.0},
    **{"targets": ["rgb"], "mimic": "", "decoder": None, "shard_window": 0},
}
"""Options that video models have no use for, with the values of those who did not give them."""

OPTIONS = (
    *("recipe", "num_frames", "tubelet_size", "conv_frames", "sampling", "frame_step", "flip", "video_root"),
    *("multi_scale", "positions", "test_clips", "test_crops"),
)


def add_clip_arguments(group: Group) -> None:
    """Options of all video models; for others they are None until :func:`parse_with_recipe` removes them."""
    group.add_argument("--recipe", choices=RECIPES, help="defaults for Kinetics-400 or Something-Something V2 [k400]")
    group.add_argument("--num_frames", type=int, help="frames of a clip [16]")
    group.add_argument("--tubelet_size", type=int, help="frames of a time slot [2]")
    group.add_argument("--conv_frames", type=int, choices=[1, 3], help="depthwise kernels 1x5x5 or 3x5x5 [1]")
    group.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        help="every --frame_step-th frame, one frame of each segment, or one frame repeated [by recipe]",
    )
    group.add_argument("--frame_step", type=int, help="of dense sampling [by recipe]")
    group.add_argument("--flip", action=argparse.BooleanOptionalAction, help="flip half of the clips [by recipe]")
    group.add_argument("--video_root", metavar="DIR", help="folder that paths in a list are relative to [the list's]")


def add_clip_classifier_arguments(group: Group) -> None:
    """Options of video classifiers."""
    group.add_argument("--positions", choices=POSITIONS, help="[learned]")
    group.add_argument("--test_clips", type=int, help="clips of a video that --eval averages [5; ssv2: 2]")
    group.add_argument("--test_crops", type=int, help="crops of a clip that --eval averages [3]")


def parse_with_recipe(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, recipes: Mapping[str, dict[str, Any]]
) -> argparse.Namespace:
    """Parses, with the defaults of a recipe in place of images' if the model is one of video.

    Raises:
        UserError: options of video with another model, or values out of range.
    """
    args = parser.parse_args(argv)
    given = [name for name in OPTIONS if getattr(args, name, None) is not None]
    if args.model not in VIDEO_MODELS and args.model not in VIDEO_CLASSIFIERS:
        if given:
            raise UserError(f"--{given[0]} is an option of video models, and {args.model} is none.")
        for name in OPTIONS:
            if hasattr(args, name):
                delattr(args, name)
        return args
    args.recipe = args.recipe or RECIPES[0]
    parser.set_defaults(**{name: v for name, v in recipes[args.recipe].items() if hasattr(args, name)})
    args = parser.parse_args(argv, argparse.Namespace(recipe=args.recipe))
    for name in ("num_frames", "tubelet_size", "frame_step", "test_clips", "test_crops"):
        if getattr(args, name, 1) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}.")
    for name, none in IMAGE_OPTIONS.items():
        if getattr(args, name, none) != none:
            flag = "cls_token" if name == "global_pool" else name
            raise UserError(f"--{flag} is an option of image models, and {args.model} is one of video.")
    return args
