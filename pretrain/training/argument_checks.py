"""Ranges of arguments: each check raises one sentence with the option, its value and what it may be."""

import argparse

from pretrain.common.errors import UserError
from pretrain.common.output_folder import check_output_folder

__all__ = ["check_above_zero", "check_at_least", "check_in_range", "check_paths", "check_seed"]

LARGEST_SEED = 2**31


def check_in_range(args: argparse.Namespace, least: float, most: float, *names: str, whole: bool = True) -> None:
    """Raises UserError unless `least <= value <= most`, or with `whole=False` `least <= value < most`."""
    for name in names:
        value = getattr(args, name)
        if not (least <= value <= most if whole else least <= value < most):
            bound = "at most" if whole else "below"
            raise UserError(f"--{name} must be at least {least:g} and {bound} {most:g}, got {value}.")


def check_at_least(args: argparse.Namespace, least: float, *names: str) -> None:
    """Raises UserError for a value that is smaller, or no finite number."""
    for name in names:
        if not least <= getattr(args, name) < float("inf"):
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}.")


def check_seed(args: argparse.Namespace) -> None:
    """Raises UserError unless `--seed` is one of NumPy's, also with the rank of a process added to it."""
    if not 0 <= args.seed < LARGEST_SEED:
        raise UserError(f"--seed must be at least 0 and below 2**31, got {args.seed}.")


def check_paths(args: argparse.Namespace) -> None:
    """Raises UserError for data or an output folder without a name: the current folder is hardly meant."""
    if not args.data_path:
        raise UserError("--data_path is empty; name the data, or . for the current folder.")
    check_output_folder("--output_dir", args.output_dir)


def check_above_zero(args: argparse.Namespace, *names: str) -> None:
    """Raises UserError for a value that is 0, smaller, or no finite number; None is for others to fill in."""
    for name in names:
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name} must be above 0, got {value}.")
