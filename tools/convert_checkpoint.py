#!/usr/bin/env python
"""Converts a checkpoint between pretraining, classification, detection and segmentation, and reports every tensor.

    python tools/convert_checkpoint.py convmae_base.pth detection.pth
    python tools/convert_checkpoint.py detection.pth trunk.safetensors --to pretrain
    python tools/convert_checkpoint.py convmae_base.pth video.pth --to classifier --num_frames 16

projects/ConvMAEDet/CHECKPOINTS.md lists the kinds of files it reads.
"""

import argparse
from typing import TYPE_CHECKING

from lazyrun.config.trust_option import add_trust_option
from pretrain.checkpoints.kinds import Target
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.utf8 import use_utf8

if TYPE_CHECKING:
    from torch import nn


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", metavar="INPUT", help=".pth or .safetensors file, published name or address")
    parser.add_argument("output", metavar="OUTPUT", help=".pth or .safetensors file to write")
    parser.add_argument("--to", choices=[t.value for t in Target], help="default: what --config is for, else detection")
    parser.add_argument("--num_frames", type=int, help="inflate an image file to a model of clips of so many frames")
    parser.add_argument("--tubelet_size", type=int, default=2, help="frames of a time slot [2]")
    parser.add_argument("--conv_frames", type=int, choices=[1, 3], default=1, help="kernels 1x5x5 or 3x5x5 [1]")
    parser.add_argument("--config", help="LazyConfig of a run: the result is fitted to its model and loaded into it")
    parser.add_argument("--force", action="store_true", help="replace OUTPUT if it exists")
    add_trust_option(parser)
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    if args.config and args.to in (Target.PRETRAIN.value, Target.CLASSIFIER.value):
        parser.error(f"--config belongs to --to detection or segmentation, not to --to {args.to}")
    if args.num_frames is not None and args.to not in (Target.PRETRAIN.value, Target.CLASSIFIER.value):
        parser.error("--num_frames belongs to --to pretrain or classifier")
    return args


def model_of(config: str) -> "nn.Module":
    """The model of a LazyConfig; the only place that needs detectron2."""
    try:
        from lazyrun.config.loading import read_config
        from lazyrun.modeling.build import build_model
    except ModuleNotFoundError as e:
        raise UserError(f"--config needs detectron2 ({e}); without it, leave --config out.") from e
    cfg = read_config(config)
    if "model" not in cfg:
        raise UserError(f"Config {config} defines no model; give the LazyConfig of a detector or segmentation model.")
    return build_model(cfg)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        from pretrain.checkpoints.convert import check_loads, convert, target_for
        from pretrain.checkpoints.grids import GRID_KEY
        from pretrain.checkpoints.inflation import ClipShape, inflate
        from pretrain.checkpoints.published import local_weights
        from pretrain.checkpoints.recognition import recognise
        from pretrain.common.files import check_output_path, save_weights

        check_output_path(args.output, args.force)
        checkpoint = recognise(local_weights(args.input))
        target = Target(args.to or "detection")
        if args.config:
            model = model_of(args.config)
            shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
            target = Target(args.to) if args.to else target_for(shapes)
            state, report = convert(checkpoint, target, shapes)
            check_loads(model, state, report)
        elif args.num_frames is not None:
            clip = ClipShape(args.num_frames, args.tubelet_size, args.conv_frames)
            state, report = inflate(checkpoint, target, clip)
        else:
            state, report = convert(checkpoint, target)
        extras = {"__author__": "ConvMAEDet"} if target is Target.DETECTION else {}
        if report.grid:
            extras[GRID_KEY] = report.grid
        save_weights(state, args.output, extras)
    print(report)
    print(f"Written to {args.output}.")


if __name__ == "__main__":
    use_utf8()
    main()
