"""What a reader of one format is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazyrun.data.formats.files import Folder, ImageFinder

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """A path that was recognised as one format.

    Attributes:
        path: what was named.
        folder: what lies in it, if it is a folder; for a file nothing was listed.
        files: the annotation files of the format.
        split: `train` or `val`, where the format or its folders tell them apart; None for everything.
        finder: finds the images.
        parsed: content of `files[0]`, for formats that keep a whole set in one file.
    """

    path: Path
    folder: Folder | None
    files: list[Path]
    split: str | None
    finder: ImageFinder
    parsed: Any = None
