"""`--fsdp` of pretraining and fine-tuning, and what it does not go with."""

import argparse

from pretrain.common.errors import UserError
from pretrain.training.target_args import EMA, parse_target

__all__ = ["add_fsdp_option", "check_fsdp"]


def add_fsdp_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument_group("models larger than one GPU").add_argument(
        "--fsdp",
        action="store_true",
        help="share out weights, gradients and moments over the processes, for models larger than one GPU; checkpoints "
        "are folders then",
    )


def check_fsdp(args: argparse.Namespace) -> None:
    """Raises UserError for options that `--fsdp` does not go with."""
    if not args.fsdp:
        return
    if args.compile:
        raise UserError("--fsdp does not go with --compile; leave out one of them.")
    if getattr(args, "model_ema", 0):
        raise UserError("--fsdp does not go with --model_ema, which averages whole weights; leave out one of them.")
    names = [parse_target(text).name for text in [*getattr(args, "targets", ()), getattr(args, "mimic", "")] if text]
    if EMA in names:
        raise UserError("--fsdp does not go with the target ema, an average of whole weights; take another target.")
