#!/usr/bin/env python
"""Converts a checkpoint between pretraining, classification and detection, and reports what became of every tensor.

    python tools/convert_checkpoint.py convmae_base.pth detection.pth
    python tools/convert_checkpoint.py detection.pth trunk.safetensors --to pretrain

projects/ConvMAEDet/CHECKPOINTS.md lists the kinds of files it reads.
"""

import argparse

from torch import nn

from pretrain.checkpoint import check_output_path, save_weights
from pretrain.checkpoint_kinds import recognise
from pretrain.convert import Target, check_loads, convert
from pretrain.errors import exit_on_user_error


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", metavar="INPUT", help=".pth or .safetensors file")
    parser.add_argument("output", metavar="OUTPUT", help=".pth or .safetensors file to write")
    parser.add_argument("--to", choices=[t.value for t in Target], default="detection", help="default: %(default)s")
    parser.add_argument("--config", help="LazyConfig of a detector: the result is fitted to it and loaded into it")
    parser.add_argument("--force", action="store_true", help="replace OUTPUT if it exists")
    args = parser.parse_args(argv)
    if args.config and args.to != Target.DETECTION.value:
        parser.error(f"--config belongs to --to detection, not to --to {args.to}")
    return args


def build_detector(config: str) -> nn.Module:
    """The model of a LazyConfig; the only place that needs detectron2."""
    try:
        from detectron2.config import LazyConfig, instantiate
    except ModuleNotFoundError as e:
        raise ValueError(f"--config needs detectron2 ({e}); without it, leave --config out.") from e
    cfg = LazyConfig.load(config)
    if "model" not in cfg:
        raise ValueError(f"Config {config} defines no model; give the LazyConfig of a detector.")
    return instantiate(cfg.model)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error(ValueError, OSError):
        check_output_path(args.output, args.force)
        checkpoint = recognise(args.input)
        if args.config:
            model = build_detector(args.config)
            shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
            state, report = convert(checkpoint, Target.DETECTION, shapes)
            check_loads(model, state, report)
        else:
            state, report = convert(checkpoint, Target(args.to))
        extras = {"__author__": "ConvMAEDet"} if args.to == Target.DETECTION.value else None
        save_weights(state, args.output, extras)
    print(report)
    print(f"Written to {args.output}.")


if __name__ == "__main__":
    main()
