"""Reconstruction pictures: original, masked, reconstruction, and reconstruction pasted around the visible patches.

Of a video model: a contact sheet of frames, or with a name that ends in .gif or .mp4 an animation.
"""

import argparse
from collections.abc import Sequence

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.utf8 import use_utf8
from pretrain.training.argument_checks import check_at_least, check_seed

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pretrain.visualize", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="full checkpoint of a pretraining run")
    parser.add_argument("--images", "--videos", required=True, help="an image or video, or a folder of them")
    parser.add_argument("--output", required=True, help="picture to write, for example reconstructions.png")
    parser.add_argument("--count", type=int, default=8, help="images or videos of a folder to show [8]")
    parser.add_argument("--mask_ratio", type=float, help="[0.75; video: 0.9]")
    parser.add_argument("--model", help="needed for files that do not name their model")
    parser.add_argument("--input_size", type=int, nargs="+", help="likewise for their image size [224]")
    parser.add_argument("--seed", type=int, default=0, help="of the masks [0]")
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    with exit_on_user_error():
        check_at_least(args, 1, "count")
        check_seed(args)
        from pretrain.evaluation.visualization import draw  # takes seconds, which --help should not

        draw(args)


if __name__ == "__main__":
    use_utf8()
    main()
