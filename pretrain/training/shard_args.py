"""The option of training on tar files: how many of them are read at a time."""

from argparse import _ArgumentGroup as Group  # argparse has no public name for it

__all__ = ["add_shard_window"]


def add_shard_window(group: Group) -> None:
    group.add_argument(
        "--shard_window",
        type=int,
        default=0,
        metavar="N",
        help="shuffle so that about N tar files are read at a time, for network disks: a multiple of the number of "
        "processes; 0: all at once [0]",
    )
