#!/usr/bin/env python3
"""Report on an evaluation, from its results: AP tables and charts, precision-recall curves, and the images
the detector does worst on, predictions beside ground truth.

Writes report.html, one self-contained page, and every picture of it as PNG.

    python tools/visualize_results.py --results output/inference/coco_instances_results.json \\
        --annotations datasets/coco/annotations/instances_val2017.json --output report

The annotations may be in any format that training reads. Results and annotations are matched by the names of images and
classes, which the file images.json beside the results tells; without one the ids must be the same.
"""

import argparse
import logging
from pathlib import Path

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.utf8 import use_utf8


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="coco_instances_results.json of an evaluation")
    parser.add_argument(
        "--annotations", type=Path, required=True, help="the data set's annotations, in any format that training reads"
    )
    parser.add_argument("--images", type=Path, help="image folder of a COCO file (default: where its images are found)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the page and the pictures")
    parser.add_argument("--count", type=int, default=10, help="images to draw, worst first (default: %(default)s)")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="least score drawn (default: %(default)s)")
    parser.add_argument(
        "--max-detections",
        type=int,
        metavar="N",
        help="detections that count in an image, best first (default: 100, or all of an image that has more)",
    )
    parser.add_argument("--title", help="of the page (default: the name of the run's folder)")
    add_traceback_option(parser)
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise UserError(f"--count {args.count}: at least one image is drawn.")
    if args.max_detections is not None and args.max_detections < 1:
        raise UserError(f"--max-detections {args.max_detections}: at least one detection counts.")
    if not 0 <= args.score_threshold <= 1:
        raise UserError(f"--score-threshold {args.score_threshold} is not between 0 and 1.")
    if args.images and not args.images.is_dir():
        raise UserError(f"Image folder {args.images} does not exist; name it with --images.")
    if args.images and not any(args.images.iterdir()):
        raise UserError(f"Image folder {args.images} is empty; name the one the annotations belong to with --images.")
    if args.output.exists() and not args.output.is_dir():
        raise UserError(f"--output {args.output} is a file; name a folder.")


def run_name(results: Path) -> str:
    """The last two folders of the run that wrote a results file to `RUN/inference` or `RUN/eval/inference`."""
    folders = [p.name for p in results.resolve().parents if p.name not in ("inference", "eval", "")]
    return "/".join(reversed(folders[:2])) or results.stem


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with exit_on_user_error():
        check_arguments(args)
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        from lazyrun.evaluation.results import match_results
        from lazyrun.evaluation.truth import read_truth
        from lazyrun.viz.report import write_report

        truth = read_truth(args.annotations, args.images)
        dataset, results = match_results(args.results, truth)
        page = write_report(
            dataset,
            results,
            truth.root,
            args.output,
            title=args.title or run_name(args.results),
            count=args.count,
            score_threshold=args.score_threshold,
            max_detections=args.max_detections,
        )
    print(f"{page}: open it in a browser; {min(args.count, len(dataset['images']))} pictures are in the same folder.")


if __name__ == "__main__":
    use_utf8()
    main()
