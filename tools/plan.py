#!/usr/bin/env python3
"""Memory and GPU hours of a training before the run, without a GPU and in about a minute: parameters, gradients,
optimizer, saved activations and peak for batch sizes, precisions and activation checkpointing.

  python tools/plan.py CONFIG [key=value ...]            a detector or segmentor, as tools/lazyconfig_train_net.py
  python tools/plan.py pretrain --model NAME [...]       options of python -m pretrain
  python tools/plan.py --all                             a Markdown table of everything here
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lazyrun.config.trust_option import add_trust_option
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.precisions import PRECISIONS
from pretrain.common.utf8 import use_utf8
from pretrain.names import MODELS, VIDEO_MODELS

if TYPE_CHECKING:
    from pretrain.common.planning.plan import Plan

REPO = Path(__file__).resolve().parents[1]
CONFIGS = "projects/*/configs/{}/*.py"
IMAGENET_IMAGES = 1_281_167
TFLOPS = {"off": 19.5, "bf16": 312.0, "fp16": 312.0}
"""Peak of an A100; in float32 without TF32, PyTorch's default."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("what", nargs="?", metavar="CONFIG|pretrain", help="LazyConfig, or the word pretrain")
    parser.add_argument("rest", nargs="*", metavar="key=value", help="overrides of the config")
    parser.add_argument("--all", action="store_true", help="plan all configs and models, one line each")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="GPUs of the run (default: %(default)s)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", metavar="N", help="for each GPU [around the recipe's]")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        default=["off", "bf16"],
        help="fp16 takes what bf16 does [off bf16]",
    )
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of a config's images [the largest]")
    parser.add_argument("--images", type=int, metavar="N", help="training images [of COCO, or of ImageNet-1k]")
    parser.add_argument("--tflops", type=float, help="peak of a GPU in the last precision [312, an A100; off: 19.5]")
    parser.add_argument(
        "--utilisation", type=float, default=0.4, metavar="SHARE", help="of that peak (default: %(default)s)"
    )
    parser.add_argument(
        "--margin", type=float, default=0.1, metavar="SHARE", help="of memory left free (default: %(default)s)"
    )
    add_trust_option(parser)
    add_traceback_option(parser)
    return parser


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Arguments, and those that are pretraining's own."""
    parser = build_parser()
    args, others = parser.parse_known_args()
    if bool(args.what) == args.all:
        parser.error("Name a config, or pretrain with its options, or give --all alone")
    unknown = [option for option in others if option.startswith("-")]
    if unknown and args.what != "pretrain":
        parser.error(f"{unknown[0]} is no option of tools/plan.py; see --help")
    if args.all and (args.size or args.batch_sizes):
        parser.error("--size and --batch_sizes are of one plan; leave them out with --all")
    if args.size and args.what == "pretrain":
        parser.error("--size is of configs; pretraining takes --input_size")
    for name in ("gpus", "images", "batch_sizes", "size", "tflops"):
        given = getattr(args, name)
        if any(not 0 < n < float("inf") for n in (given if isinstance(given, list) else [given]) if n is not None):
            parser.error(f"--{name} must be above 0, got {given}")
    if not 0 < args.utilisation <= 1:
        parser.error(f"--utilisation must be above 0 and at most 1, got {args.utilisation}")
    if not 0 <= args.margin < 1:
        parser.error(f"--margin must be at least 0 and below 1, got {args.margin}")
    return args, others


def plan_of(args: argparse.Namespace, what: str, options: list[str]) -> "Plan":
    import torch  # what takes seconds to import is not waited for by --help

    from lazyrun.config.schedule import COCO_TRAIN_IMAGES
    from lazyrun.planning.config import config_to_plan
    from pretrain.common.planning.plan import make_plan
    from pretrain.training.planning import pretraining_to_plan

    if what == "pretrain":
        training = pretraining_to_plan(options, args.gpus, args.images or IMAGENET_IMAGES)
    else:
        size = tuple(args.size) if args.size else None
        training = config_to_plan(what, options, args.gpus, args.images or COCO_TRAIN_IMAGES, size)
    return make_plan(training, torch.device("cuda:0"), args.precisions)


def everything() -> Iterator[tuple[str, list[str]]]:
    for folder in ("COCO", "LVIS", "ADE20K", "shapes"):
        yield from ((str(path), []) for path in sorted(REPO.glob(CONFIGS.format(folder))))
    for name in (*MODELS, *VIDEO_MODELS):
        yield "pretrain", [f"--model={name}"]


def main() -> None:
    args, others = parse()
    with exit_on_user_error():
        from pretrain.common.planning.report import TABLE_HEAD, Assumptions, report, table_row

        assumptions = Assumptions(args.tflops or TFLOPS[args.precisions[-1]], args.utilisation, args.margin)
        if not args.all:
            plan = plan_of(args, args.what, [*args.rest, *others])
            n = plan.training.batch_size
            batch_sizes = args.batch_sizes or sorted({max(1, n // 2), n, 2 * n})
            sys.stdout.write(report(plan, batch_sizes, assumptions) + "\n")
            return
        args = argparse.Namespace(**vars(args) | {"precisions": args.precisions[-1:]})
        sys.stdout.write(TABLE_HEAD + "\n")
        for what, options in everything():
            plan = plan_of(args, what, options)
            if what != "pretrain":
                plan = replace(plan, training=replace(plan.training, name=Path(what).stem))
            sys.stdout.write(table_row(plan, assumptions) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    use_utf8()
    main()
