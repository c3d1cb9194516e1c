"""The options of sliced prediction on a command line; without PyTorch, as :mod:`lazyrun.slices`."""

import argparse
from typing import Any

from lazyrun.slices import METRICS, Slicing

__all__ = ["add_slice_options", "slice_options"]

KEYS = ("slice", "slice_overlap", "slice_whole", "slice_metric", "slice_threshold")


def add_slice_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--slice` and its companions."""
    add = parser.add_argument_group("small objects in large images").add_argument
    add("--slice", type=int, metavar="PIXELS", help="also predict square slices of larger images, of this side")
    add(
        "--overlap",
        dest="slice_overlap",
        type=float,
        metavar="SHARE",
        help=f"least share of its side that a slice has in common with the next (default: {Slicing.overlap})",
    )
    add(
        "--slice-whole",
        action=argparse.BooleanOptionalAction,
        help="predict the whole image as well (default), or slices alone",
    )
    add(
        "--slice-metric",
        choices=METRICS,
        help=f"overlap of two objects: intersection over union, or over the smaller (default: {Slicing.metric})",
    )
    add(
        "--slice-threshold",
        type=float,
        metavar="OVERLAP",
        help=f"overlap from which two objects of different slices are one (default: {Slicing.threshold})",
    )


def slice_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """What was given of them, by the names that configs and :meth:`Slicing.from_options` have.

    The parser ends the program if a companion was given alone.
    """
    given = {key: getattr(args, key) for key in KEYS if getattr(args, key) is not None}
    if given and "slice" not in given:
        parser.error("--overlap and --slice-… are of use with --slice PIXELS")
    return given
