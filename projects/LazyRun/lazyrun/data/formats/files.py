"""Finding and reading the files of a data set; whatever is wrong with one is a sentence that names it."""

import codecs
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from lazyrun.data.images import is_file
from pretrain.common.errors import UserError
from pretrain.common.images import IMAGE_SUFFIXES

__all__ = [
    "Folder",
    "ImageFinder",
    "entries",
    "name_of_part",
    "number",
    "numbers",
    "part_of_split",
    "read_json",
    "read_text",
    "read_xml",
    "read_yaml",
    "split_in",
    "table",
]

SPLIT_NAMES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "test", "testing"),
}
"""What the parts of a data set are called, best first."""

DEPTH = 4
"""Levels of folders below the one of an annotation file in which its images are looked for."""


class Folder:
    """What lies in a folder and below it, in order of names, without hidden files."""

    def __init__(self, path: Path, depth: int | None = None):
        self.path = path
        self.files = sorted(_walk(path, depth))

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Files of these suffixes, in whatever case."""
        return [f for f in self.files if f.suffix.lower() in suffixes]

    @cached_property
    def images(self) -> list[Path]:
        return [f for f in self.files if f.suffix.lower() in IMAGE_SUFFIXES]

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """Images by their name in lower case."""
        return _grouped(self.images, lambda f: f.name.casefold())

    @cached_property
    def by_stem(self) -> dict[str, list[Path]]:
        """Images by their name in lower case, without the suffix."""
        return _grouped(self.images, lambda f: f.stem.casefold())


def _grouped(files: Iterable[Path], key: Any) -> dict[str, list[Path]]:
    groups = defaultdict(list)
    for file in files:
        groups[key(file)].append(file)
    return dict(groups)


def _walk(path: Path, depth: int | None) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        level = len(Path(folder).relative_to(path).parts)
        hidden_or_deep = depth is not None and level >= depth
        folders[:] = [] if hidden_or_deep else [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
        yield from (Path(folder, f) for f in files if not f.startswith("."))


class ImageFinder:
    """Finds the images that annotations name, in a folder and, for an annotation file that was named alone, beside it.

    Args:
        folder: what was named, or the folder of the file that was named.
        around: look into the folders beside `folder` too.
    """

    def __init__(self, folder: Folder | Path, *, around: bool = False):
        self.path = folder.path if isinstance(folder, Folder) else folder
        self._given = folder if isinstance(folder, Folder) else None
        self._around = around

    @cached_property
    def folder(self) -> Folder:
        return self._given or Folder(self.path, DEPTH)

    @cached_property
    def _surroundings(self) -> Folder:
        return Folder(self.path.parent, 2)

    def find(self, name: str, annotations: Path, *, by_stem: bool = False) -> Path:
        """The image that is called `name`.

        Args:
            name: file name, maybe with folders in front of it, of which as many as fit decide between several files.
            annotations: file that names it, for messages; an image beside it is preferred.
            by_stem: whatever its suffix.

        Raises:
            UserError: there is none, or more than one.
        """
        name = name.replace("\\", "/")
        for direct in () if by_stem else (annotations.parent / name, self.path / name):
            if direct.suffix.lower() in IMAGE_SUFFIXES and is_file(direct):
                return direct
        for place in ("folder", "_surroundings") if self._around else ("folder",):
            folder: Folder = getattr(self, place)
            base = Path(name).name.casefold()
            found = (folder.by_stem if by_stem else folder.by_name).get(base, [])
            if found:
                return _best(found, name, annotations)
        raise UserError(
            f"{annotations}: its image {name} is missing from {self.path}; put it there, or remove its annotations."
        )


def _best(found: Sequence[Path], name: str, annotations: Path) -> Path:
    """The file whose folders agree with most of those in `name`, or that is nearest to the annotations."""
    parts = [p.casefold() for p in Path(name).parts[:-1]]

    def agreeing(file: Path) -> int:
        own = [p.casefold() for p in file.parts[:-1]]
        return next((n for n in range(len(parts), 0, -1) if own[-n:] == parts[-n:]), 0)

    def distance(file: Path) -> int:
        return len(Path(os.path.relpath(file.parent, annotations.parent)).parts)

    ranked = sorted(found, key=lambda f: (-agreeing(f), distance(f)))
    if len(ranked) > 1 and (agreeing(ranked[0]), distance(ranked[0])) == (agreeing(ranked[1]), distance(ranked[1])):
        raise UserError(f"{annotations}: image {name} may be {ranked[0]} or {ranked[1]}; keep one of them.")
    return ranked[0]


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


def read_json(path: Path) -> Any:
    """A JSON file in UTF-8 or UTF-16, with a byte order mark or without."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f"{path} is not a JSON file: {e}.") from e
    except RecursionError as e:
        raise UserError(f"{path} is not a JSON file of annotations: it is nested too deeply.") from e


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 with a byte order mark."""
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not text in UTF-8; save it in that encoding.") from e


def read_yaml(path: Path) -> Any:
    """A YAML file."""
    try:
        return yaml.safe_load(read_text(path))
    except RecursionError as e:
        raise UserError(f"{path} is not a YAML file of annotations: it is nested too deeply.") from e
    except (yaml.YAMLError, ValueError) as e:  # of a date that is none, such as 2024-99-99
        raise UserError(f"{path} is not a YAML file: {' '.join(str(e).split())}.") from e


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses document types: annotations need none, and their entities can fill the memory."""

    def doctype(self, *_: object) -> None:
        raise UserError("it has a DOCTYPE, which annotations do not need; remove it")


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file."""
    try:
        return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_WithoutDoctype()))
    except UserError as e:
        raise UserError(f"{path}: {e}.") from e
    except (ElementTree.ParseError, ValueError, LookupError) as e:
        raise UserError(f"{path} is not an XML file: {e}.") from e


def number(value: object, where: str, what: str) -> float:
    """A finite number from JSON or text.

    Raises:
        UserError: it is none.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        result = float(value)
    except (ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise UserError(f"{where}: {what} is {_shown(value)}, not a number; correct or remove it.")
    return result


def table(value: object, where: str, what: str) -> dict[str, Any]:
    """An object of JSON; null is an empty one.

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: {what} is {_shown(value)}, not a table of keys and values; correct or remove it.")
    return value


def entries(value: object, where: str, what: str) -> list:
    """A list of JSON, or the values of an object; null is an empty one.

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list | dict):
        raise UserError(f"{where}: {what} is {_shown(value)}, not a list; correct or remove it.")
    return list(value.values()) if isinstance(value, dict) else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def numbers(values: object, keys: Iterable[str], where: str) -> list[float]:
    """The numbers that a dict or the attributes of an XML element have under these keys.

    Raises:
        UserError: one is missing, or not a number.
    """
    if not hasattr(values, "get"):
        raise UserError(f"{where}: it is {_shown(values)}, without coordinates; correct or remove it.")
    return [number(values.get(key), where, key) for key in keys]
