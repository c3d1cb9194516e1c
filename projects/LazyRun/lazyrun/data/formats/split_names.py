"""Which split of a data set a file or image belongs to, as the names of folders, files and subsets tell."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pretrain.common.errors import UserError

__all__ = ["SPLIT_NAMES", "name_of_part", "part_of_split", "split_in"]

SPLIT_NAMES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "test", "testing"),
}
"""What the parts of a data set are called, best first."""


def part_of_split(
    files: Sequence[Path], folder: Path, split: str | None, *, stems: bool = False
) -> tuple[list[Path], str]:
    """Those of some files that belong to a split, as the names of their folders tell.

    Args:
        files: below `folder`.
        split: `train` or `val`; None takes all.
        stems: the files' own names tell too, as `instances_train2017.json` does.

    Returns:
        the files, and what the part is called; all of them and "" if none is marked as one of a split.

    Raises:
        UserError: only other splits are there.
    """
    marks = {file: _mark(file.relative_to(folder), stems) for file in files}
    part = name_of_part(marks.values(), folder, split)
    return [file for file in files if not part or marks[file] == part], part


def name_of_part(marks: Iterable[str], where: Path, split: str | None) -> str:
    """What a split is called among names of parts; "" if none is named, or everything is taken.

    Args:
        marks: one of :data:`SPLIT_NAMES` for each file or image, or "".
        where: what holds them, for messages.
        split: `train` or `val`; None takes everything.

    Raises:
        UserError: only other splits are there.
    """
    present = set(marks) - {""}
    if split is None or not present:
        return ""
    for name in SPLIT_NAMES[split]:
        if name in present:
            return name
    raise UserError(
        f"{where}: it has the parts {', '.join(sorted(present))}, but none called {' or '.join(SPLIT_NAMES[split])}; "
        "name the folder or file of the part that is meant."
    )


def _mark(relative: Path, stems: bool) -> str:
    """The split that a path names, or ""."""
    words = [p.casefold() for p in relative.parts[:-1]]
    if stems:
        words += re.split(r"[^a-z0-9]+", relative.stem.casefold())
    return next(filter(None, map(split_in, words)), "")


def split_in(word: str) -> str:
    """The name of a split that a word is, in whatever case and maybe with a year, or ""."""
    name = word.casefold().rstrip("0123456789")
    return name if any(name in names for names in SPLIT_NAMES.values()) else ""
