"""Which format a path holds, and reading it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazyrun.data.formats.coco import looks_like_coco, read_coco, stated_root
from lazyrun.data.formats.content import AnnotatedSet, listed
from lazyrun.data.formats.cvat import looks_like_cvat, read_cvat
from lazyrun.data.formats.files import Folder, ImageFinder, read_json, read_xml
from lazyrun.data.formats.label_studio import looks_like_label_studio, read_label_studio
from lazyrun.data.formats.labelme import looks_like_labelme, read_labelme
from lazyrun.data.formats.masks import mask_files, read_masks
from lazyrun.data.formats.source import Source
from lazyrun.data.formats.split_names import part_of_split
from lazyrun.data.formats.via import looks_like_via, read_via
from lazyrun.data.formats.voc import looks_like_voc, read_voc
from lazyrun.data.formats.yolo import read_yolo, yolo_files
from pretrain.common.errors import UserError

__all__ = ["FORMATS", "format_of", "read_dataset"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: what it is called in messages.
        read: its reader.
        json, xml: whether the content of a file, or its root element, is of this format.
        find: its files in a folder, where contents do not tell.
        single: one file annotates all images.
        joins: several such files are one set.
    """

    name: str
    read: Callable[[Source], AnnotatedSet]
    json: Callable[[object], bool] | None = None
    xml: Callable[[Any], bool] | None = None
    find: Callable[[Folder], list[Path]] | None = None
    single: bool = True
    joins: bool = False


FORMATS = (
    Format("COCO JSON", read_coco, json=looks_like_coco),
    Format("VIA", read_via, json=looks_like_via),
    Format("Label Studio", read_label_studio, json=looks_like_label_studio),
    Format("LabelMe", read_labelme, json=looks_like_labelme, single=False),
    Format("CVAT for images", read_cvat, xml=looks_like_cvat, joins=True),
    Format("Pascal VOC", read_voc, xml=looks_like_voc, single=False),
    Format("YOLO", read_yolo, find=yolo_files, single=False),
    Format("instance masks", read_masks, find=mask_files, single=False),
)
"""All formats that are read."""

READ = ", ".join(f.name for f in FORMATS)


def format_of(content: object) -> str | None:
    """The name of the format that a JSON file of this content is in; None for none that is read."""
    kind = _kind_of(content, ".json")
    return None if kind is None else kind.name


def read_dataset(path: str | Path, split: str | None = None, *, refuse: bool = True) -> AnnotatedSet:
    """Recognises what a file or folder holds, says so in the log, and reads it.

    Args:
        path: annotation file, or folder with annotations and images.
        split: `train` or `val` takes that part of data that name their parts (`ImageSets`, `data.yaml`, folders called
            `train` and `valid`); None takes everything.
        refuse: raise for faults of single files and objects too, rather than return a set with faults.

    Raises:
        UserError: it is in no format that is read, in several, or something in it cannot be used.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder.")
    chosen, source = _recognise_file(path, split) if path.is_file() else _recognise_folder(path, split)
    found = chosen.read(source)
    if refuse:
        found.check()
    if not found.faults:
        logger.info(str(found))
    return found


def _recognise_file(path: Path, split: str | None) -> tuple[Format, Source]:
    suffix = path.suffix.lower()
    finder = ImageFinder(path.absolute().parent, around=True)
    if suffix in (".yaml", ".yml"):
        return _named("YOLO"), Source(path, None, [path], split, finder)
    if suffix not in (".json", ".xml"):
        raise UserError(f"{path}: {_other_file(suffix)} The formats read are: {READ}.")
    parsed = read_json(path) if suffix == ".json" else read_xml(path)
    kind = _kind_of(parsed, suffix)
    if kind is None:
        raise UserError(f"{path}: {_other_content(parsed)} The formats read are: {READ}.")
    return kind, Source(path, None, [path], split, finder, parsed)


def _recognise_folder(path: Path, split: str | None) -> tuple[Format, Source]:
    folder = Folder(_inner(path.absolute()))
    files: dict[str, list[Path]] = {}
    parsed: dict[Path, Any] = {}
    unknown, converted = [], []
    for file in _representatives(folder):
        content = read_json(file) if file.suffix.lower() == ".json" else read_xml(file)
        kind = _kind_of(content, file.suffix.lower())
        if kind is None:
            unknown.append((file, content))
            continue
        if kind.name == "COCO JSON" and isinstance(content, dict) and stated_root(content):
            converted.append(file)
        else:
            files.setdefault(kind.name, []).append(file)
        if kind.single:
            parsed[file] = content
    for kind in FORMATS:
        found = kind.find(folder) if kind.find else []
        if found:
            files[kind.name] = found
    if converted and not files:  # beside what they were made from, as in the output folder of a run, they do not count
        files["COCO JSON"] = converted
    if len(files) != 1:
        raise UserError(_ambiguous(path, files) if files else _nothing(path, folder, unknown))
    kind = _named(next(iter(files)))
    finder = ImageFinder(folder)
    if not kind.single:
        return kind, Source(path, folder, _all_of(kind, folder, files[kind.name]), split, finder)
    chosen, _ = part_of_split(files[kind.name], folder.path, split, stems=True)
    if len(chosen) > 1 and not kind.joins:
        raise UserError(f"{path}: several files of {kind.name} ({listed(chosen)}); name the one that is meant.")
    if chosen[0].parent != folder.path:  # its images lie around it
        finder = ImageFinder(chosen[0].parent, around=True)
    return kind, Source(path, folder, chosen, split, finder, parsed[chosen[0]])


def _named(name: str) -> Format:
    return next(f for f in FORMATS if f.name == name)


def _inner(path: Path) -> Path:
    """What a folder holds if that is one folder alone, as archives are unpacked."""
    while True:
        entries = [p for p in path.iterdir() if not p.name.startswith(".") and p.name != "__MACOSX"]
        if len(entries) != 1 or not entries[0].is_dir():
            return path
        path = entries[0]


def _representatives(folder: Folder) -> list[Path]:
    """JSON and XML files that tell the format: of those that belong to an image each, one of each folder will do."""
    seen, chosen = set(), []
    for file in folder.with_suffix(".json", ".xml"):
        key = (file.parent, file.suffix.lower())
        if file.stem.casefold() not in folder.by_stem:
            chosen.append(file)
        elif key not in seen:
            seen.add(key)
            chosen.append(file)
    return chosen


def _all_of(kind: Format, folder: Folder, found: list[Path]) -> list[Path]:
    """All files of a format that has one for each image."""
    if kind.find:
        return found
    suffix = ".json" if kind.json else ".xml"
    represented = set(_representatives(folder))
    return [f for f in folder.with_suffix(suffix) if f in found or f not in represented]


def _kind_of(content: Any, suffix: str) -> Format | None:
    tests = ((f, f.json if suffix == ".json" else f.xml) for f in FORMATS)
    return next((f for f, test in tests if test is not None and test(content)), None)


def _ambiguous(path: Path, files: dict[str, list[Path]]) -> str:
    kinds = " and ".join(f"{name} ({listed((f.name for f in some), 2)})" for name, some in files.items())
    return f"{path} holds {kinds}; name the file or folder that is meant, or move one kind away."


def _nothing(path: Path, folder: Folder, unknown: Sequence[tuple[Path, Any]]) -> str:
    if unknown:
        file, content = unknown[0]
        return f"{file}: {_other_content(content)} The formats read are: {READ}."
    others = folder.with_suffix(".csv", ".zip", ".tar", ".gz", ".txt", ".tfrecord")
    what = _other_file(others[0].suffix.lower()) if others else ""
    seen = f"{others[0].name}: {what} " if others else ""
    return f"{path}: no annotations beside its {len(folder.images)} images. {seen}The formats read are: {READ}."


def _other_file(suffix: str) -> str:
    """What is to be done with a file that is not read."""
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        return "an archive; unpack it and name the folder."
    if suffix == ".csv":
        return "a table; export the annotations in another format, such as JSON."
    if suffix == ".txt":
        return "a text file; for YOLO name its data.yaml or the folder."
    return f"a file that ends in {suffix or 'nothing'} holds no annotations."


def _other_content(content: Any) -> str:
    """What JSON or XML of another kind is, in a sentence."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        if "score" in first and "image_id" in first:
            return "detections (a COCO results file), not annotations."
        if {"image", "annotations"} <= set(first):
            return "CreateML's format, which is not read."
        if "annotation_id" in first or "annotator" in first:
            return "Label Studio's JSON-MIN; export as JSON."
        return "a list of something that is not known."
    if isinstance(content, dict):
        if {"project", "config", "file", "metadata"} & set(content) and "view" in content:
            return "a project of VIA 3, which is not read."
        missing = [key for key in ("images", "annotations", "categories") if key not in content]
        if len(missing) < 3:
            return f"COCO JSON without {' and '.join(missing)}."
        return "JSON that is not known."
    tag = getattr(content, "tag", None)
    return f"XML with <{tag}> around it, which is not known." if tag else "neither a table nor a list."
