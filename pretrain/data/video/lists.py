"""Lists of labelled videos: `path label`, Kinetics' CSV and JSON, Something-Something's CSV and JSON."""

import csv
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.common.errors import UserError
from pretrain.data.video.files import VIDEO_SUFFIXES

__all__ = ["LIST_SUFFIXES", "Entry", "find_list", "read_class_names", "read_list"]

LIST_SUFFIXES = (".csv", ".txt", ".json")
HEAD = re.compile(
    r"(?:path|video|video_path|file|filename|name|id)\s*([;\t, ])(?:.*\1)?\s*(?:label|labels|class|category)",
    re.IGNORECASE,
)
"""A first line that names columns, as tables have; `video,first-class` is of a video."""


@dataclass(frozen=True)
class Entry:
    """A line of a list.

    Attributes:
        name: of the video, relative to the list's videos; the suffix may be left out.
        label: name or number of the class; None where there is none.
    """

    name: str
    label: str | None


def find_list(folder: Path, split: str) -> Path | None:
    """The list of a split in a folder: `train.csv`, `kinetics400_train_list.txt`, `something-something-v2-train.json`.

    Raises:
        UserError: there are several.
    """
    pattern = rf"(.*[-_])?{re.escape(split)}([-_].*)?"
    files = [p for p in sorted(folder.iterdir()) if p.suffix in LIST_SUFFIXES and re.fullmatch(pattern, p.stem)]
    exact = [p for p in files if p.stem == split]
    files = exact or files
    if len(files) > 1:
        raise UserError(f"{folder} holds several lists for {split}: {', '.join(p.name for p in files)}; keep one.")
    return files[0] if files else None


def read_list(path: Path) -> list[Entry]:
    """Reads a list in whichever of the forms it is.

    Raises:
        UserError: it is in none of them, or empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = _json_entries(json.loads(text)) if path.suffix == ".json" else _text_entries(text)
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is no list of videos: it is not text ({e.reason}).") from e
    except json.JSONDecodeError as e:
        raise UserError(f"{path} is not valid JSON: {e}.") from e
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise UserError(f"{path} is no list of videos in a known form: {e}.") from e
    if not entries:
        raise UserError(f"{path} lists no video.")
    for entry in entries:
        _check_name(entry.name, path)
    return entries


def _check_name(name: str, path: Path) -> None:
    """Raises UserError for what no file can be called: JSON may hold halves of characters."""
    try:
        possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise UserError(f"{path} lists {name!r}, which cannot be the name of a file; correct or remove it.")


def read_class_names(folder: Path) -> list[str] | None:
    """Names of the classes in the order of their numbers, from `classes.txt` or Something-Something's `*labels.json`.

    Raises:
        UserError: the file is not what it should be.
    """
    if (folder / "classes.txt").is_file():
        return _lines_of_names(folder / "classes.txt")
    files = [p for p in sorted(folder.glob("*labels.json")) if p.is_file()]
    if not files:
        return None
    try:
        numbers = {name: int(number) for name, number in json.loads(files[0].read_text()).items()}
    except (ValueError, AttributeError, TypeError) as e:
        raise UserError(f"{files[0]} is not a JSON object of class names with their numbers: {e}.") from e
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise UserError(f"{files[0]} does not number its {len(numbers)} classes from 0 to {len(numbers) - 1}.")
    return sorted(numbers, key=lambda name: numbers[name])


def _lines_of_names(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is no list of class names: it is not UTF-8 text ({e.reason}).") from e
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name or name in seen:
            what = f"names {name!r} again" if name else "is empty"
            raise UserError(f"{path}: line {number} {what}; each line is the name of one class, in order.")
        seen.add(name)
    return names


def _json_entries(content: Any) -> list[Entry]:
    if not isinstance(content, dict):
        return [_something(item) for item in content]
    entries = []
    for video, item in content.items():  # Kinetics: {"id": {"annotations": {"label": …, "segment": [0, 10]}}}
        start, end = item["annotations"]["segment"]
        entries.append(_kinetics(video, start, end, item["annotations"].get("label")))
    return entries


def _something(item: dict[str, Any]) -> Entry:
    """Something-Something V2: a template such as "Holding [something]", without brackets in the list of classes."""
    label = item.get("template") or item.get("label")
    return Entry(str(item["id"]), re.sub(r"[\[\]]", "", label) if label else None)


def _kinetics(video: str, start: Any, end: Any, label: str | None) -> Entry:
    """The name that the usual downloaders give to a ten-second cut of a video."""
    return Entry(f"{video}_{int(float(start)):06d}_{int(float(end)):06d}", label or None)


def _text_entries(text: str) -> list[Entry]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    head = [word.strip() for word in lines[0].split(",")] if lines else []
    if "youtube_id" in head:
        rows = csv.DictReader(lines)
        return [_kinetics(r["youtube_id"], r["time_start"], r["time_end"], r.get("label")) for r in rows]
    if lines and HEAD.fullmatch(lines[0]):
        del lines[0]
    split = _splitter(lines)
    return [split(line) for line in lines]


def _splitter(lines: list[str]) -> Callable[[str], Entry]:
    """How to split the lines: at semicolons (Something-Something), commas, tabs, or spaces before the label."""
    for separator in (";", "\t", ","):
        if all(separator in line for line in lines):
            return lambda line: Entry(*(word.strip() for word in line.split(separator, 1)))
    return _spaced


def _spaced(line: str) -> Entry:
    """`path label`, `path number_of_frames label` of a folder of frames, or a path alone."""
    words = line.rsplit(None, 2)
    if len(words) == 3 and words[1].isdecimal() and words[2].isdecimal() and not Path(words[0]).suffix:
        return Entry(words[0], words[2])
    name, _, label = line.rpartition(" ")
    labelled = label.isdecimal() or Path(name).suffix.lower() in VIDEO_SUFFIXES
    return Entry(name.strip(), label) if name and labelled else Entry(line, None)
