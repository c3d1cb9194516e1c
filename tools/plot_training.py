#!/usr/bin/env python3
"""Plot loss, learning rate, accuracy (AP, mIoU, nearest neighbours) and memory of runs from the logs they leave.

    python tools/plot_training.py output/mine output/baseline --output curves.png --smooth 5

A run is its folder, or its metrics.json (detection and segmentation, over iterations) or log.jsonl (pretraining, over
epochs).
For iterations that a killed and resumed run repeated, the last values are plotted.
"""

import argparse
from pathlib import Path

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.temporary import replacing
from pretrain.common.utf8 import use_utf8

FORMATS = (".png", ".pdf", ".svg")


def run_names(paths: list[Path]) -> list[str]:
    """The folders' names, or whole paths where these are not enough to tell runs apart."""
    names = [p.resolve().name if p.is_dir() else p.resolve().parent.name for p in paths]
    return names if len(set(names)) == len(names) else [str(p) for p in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, a metrics.json or a log.jsonl"
    )
    parser.add_argument("--output", type=Path, default=Path("training.png"), help="picture [%(default)s]")
    parser.add_argument("--names", nargs="+", help="of the runs in the legend (default: their folders')")
    parser.add_argument("--smooth", type=int, default=1, metavar="N", help="running median of N points over the loss")
    add_traceback_option(parser)
    args = parser.parse_args()
    with exit_on_user_error():
        if args.output.suffix not in FORMATS:
            raise UserError(f"--output {args.output} must end in {', '.join(FORMATS)}.")
        if args.smooth < 1:
            raise UserError(f"--smooth {args.smooth}: a median is of at least one point.")
        if args.names and len(args.names) != len(args.runs):
            raise UserError(f"--names gives {len(args.names)} names for {len(args.runs)} runs.")
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        from lazyrun.viz.curves import plot_runs, read_curves

        curves = [read_curves(path) for path in args.runs]
        figure = plot_runs(dict(zip(args.names or run_names(args.runs), curves, strict=True)), args.smooth)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(args.output) as temporary:
            figure.savefig(temporary, format=args.output.suffix[1:], dpi=110)
    print(f"{args.output}: {len(args.runs)} runs")


if __name__ == "__main__":
    use_utf8()
    main()
