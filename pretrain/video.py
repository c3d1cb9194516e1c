"""`python -m pretrain.video predict` names the class of a video, `features` writes the features of a folder of them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.common.commands import add_traceback_option, run_command
from pretrain.common.errors import UserError
from pretrain.training.argument_checks import check_at_least

__all__ = ["main"]

DESCRIPTION = """\
Use a trained video model.

  python -m pretrain.video predict --weights output/finetuned/classifier.pth --device cpu clip.mp4
  python -m pretrain.video features --weights output/pretrained/encoder.pth --device cpu VIDEOS features.npy
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.video", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command", metavar="{predict,features}")
    predict = commands.add_parser("predict", help="the most probable classes of one video")
    predict.add_argument("video", help="a video file, or a folder of frames")
    predict.add_argument("--top", type=int, default=5, help="classes to name [5]")
    features = commands.add_parser("features", help="the features of videos, as a file")
    features.add_argument("videos", help="a folder of videos, a list of them, or one video")
    features.add_argument("output", type=Path, help=".npy, with a list of names beside it, or .safetensors")
    features.add_argument("--num_workers", type=int, default=8, help="processes that read videos [8]")
    features.add_argument("--video_root", default="", help="folder that paths in a list are relative to [the list's]")
    for command in (predict, features):
        command.add_argument("--weights", required=True, metavar="FILE", help="own classifier; features: encoder too")
        command.add_argument("--clips", type=int, default=1, help="clips of a video, which are averaged [1]")
        command.add_argument("--crops", type=int, default=1, help="crops of a clip, likewise [1]")
        command.add_argument("--device", default="cuda", help="cuda or cpu [cuda]")
        add_traceback_option(command)
    return parser


def run(args: argparse.Namespace) -> None:
    check_at_least(args, 1, "clips", "crops")
    # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
    import torch

    from pretrain.common.devices import check_device
    from pretrain.evaluation.video_use import FEATURE_SUFFIXES, VideoUser, save_features

    check_device(args.device)
    user = VideoUser(args.weights, args.clips, args.crops, torch.device(args.device), args.command == "predict")
    if args.command == "predict":
        check_at_least(args, 1, "top")
        for name, probability in user.probabilities(args.video)[: args.top]:
            sys.stdout.write(f"{100 * probability:5.1f} %  {name}\n")
        return
    check_at_least(args, 0, "num_workers")
    if args.output.suffix not in FEATURE_SUFFIXES:
        raise UserError(f"The output {args.output} must end in {' or '.join(FEATURE_SUFFIXES)}.")
    features, names = user.features(args.videos, args.num_workers, args.video_root)
    save_features(features, names, args.output)
    sys.stdout.write(f"{len(names)} x {features.shape[1]} features: {args.output}\n")


def main(argv: Sequence[str] | None = None) -> None:
    run_command(lambda: run(build_parser().parse_args(argv)))


if __name__ == "__main__":
    main()
