"""Finding and reading the files of a data set; whatever is wrong with one is a sentence that names it."""

import codecs
import json
import os
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

__all__ = ["Folder", "ImageFinder", "read_json", "read_text", "read_xml", "read_yaml"]

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
