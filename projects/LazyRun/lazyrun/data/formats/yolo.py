"""YOLO: a text file for each image, with a line for each box or polygon in fractions of the image's size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lazyrun.data.formats.content import AnnotatedSet, CocoBuilder
from lazyrun.data.formats.files import Folder, read_text, read_yaml
from lazyrun.data.formats.source import Source
from lazyrun.data.formats.split_names import SPLIT_NAMES, part_of_split
from lazyrun.data.formats.values import number
from pretrain.common.errors import UserError
from pretrain.common.images import IMAGE_SUFFIXES

__all__ = ["label_file", "read_yolo", "yolo_files"]

NAME = "YOLO"
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")
DIGITS = 4
"""Decimals of a pixel that are kept; the files have six of the image's size."""

SLACK = 0.01
"""How far outside of [0, 1] rounding may take a coordinate."""


def label_file(image: Path) -> Path:
    """`labels/…/a.txt` of `images/…/a.jpg`, else the text file beside the image."""
    parts = list(image.parent.parts)
    for index in reversed(range(len(parts))):
        if parts[index].casefold() == "images":
            labels = Path(*parts[:index], _cased(Path(*parts[:index]), "labels"), *parts[index + 1 :])
            if labels.is_dir():
                return labels / f"{image.stem}.txt"
            break
    return image.with_suffix(".txt")


def _cased(folder: Path, name: str) -> str:
    return name if (folder / name).is_dir() or not (folder / name.capitalize()).is_dir() else name.capitalize()


def yolo_files(folder: Folder) -> list[Path]:
    """Label files of the images in a folder, and its `data.yaml`: what shows that it is in this format."""
    described = [f for f in folder.with_suffix(".yaml", ".yml") if _is_description(f)]
    texts = set(folder.with_suffix(".txt"))
    labels = (label_file(image) for image in folder.images)
    return described + [f for f in labels if f in texts or (_in_labels(f) and f.is_file())]


def _in_labels(file: Path) -> bool:
    return "labels" in (p.casefold() for p in file.parent.parts)


def _is_description(file: Path) -> bool:
    try:
        content = read_yaml(file)
    except UserError:
        return False
    return isinstance(content, dict) and "names" in content


def read_yolo(source: Source) -> AnnotatedSet:
    """Boxes (`class x y width height`, x and y of the centre) and polygons (`class x y x y …`).

    An image without label file, or with an empty one, is background. Class names come from `data.yaml`, or from
    `classes.txt` and the like in a folder of the labels or images or up to two above.

    Raises:
        UserError: a line is neither box nor polygon, or there are no class names.
    """
    described = source.files[0] if source.files and source.files[0].suffix.lower() in (".yaml", ".yml") else None
    images, part = _images(source, described)
    names, names_file = _names(source, described, images)
    builder = CocoBuilder(list(names.values()))
    background = 0
    for file in images:
        image = builder.image(file, None, str(file))
        labels = label_file(file)
        lines = read_text(labels).splitlines() if image and labels.is_file() else []
        objects = [(n, line.split()) for n, line in enumerate(lines, start=1) if line.strip()]
        background += bool(image) and not objects
        for n, words in objects:
            assert image is not None, "without an image nothing is read"
            with builder.collecting():
                _add(builder, image, words, names, f"{labels}, line {n}", names_file)
    if part:
        builder.notes.append(f"its part {part!r}, {len(images)} images")
    if background:
        builder.notes.append(f"{background} images without objects are background")
    _check_strays(images)
    return builder.finish(source.path, NAME)


def _images(source: Source, described: Path | None) -> tuple[list[Path], str]:
    """The images of a split, as `data.yaml` lists them, or as their folders are called."""
    content = read_yaml(described) if described else {}
    if "kpt_shape" in content:
        raise UserError(f"{described} describes key points (kpt_shape), which are not read; export boxes or polygons.")
    keys = SPLIT_NAMES[source.split] if source.split else ("train", "val", "valid", "test")
    chosen = [key for key in keys if content.get(key)][: 1 if source.split else None]
    if source.folder and (source.split is None or not chosen):
        return part_of_split(_labelled(source.folder.images), source.folder.path, source.split)
    if described is None or not chosen:
        wanted = " or ".join(keys)
        raise UserError(f"{described} names no {wanted} images; add the key, or name the folder with the images.")
    listed = [f for key in chosen for f in _listed_images(described, content, key)]
    return list(dict.fromkeys(listed)), chosen[0] if source.split else ""


def _labelled(images: list[Path]) -> list[Path]:
    """Images of `images/` where there is such a folder; else all of them."""
    proper = [f for f in images if "images" in (p.casefold() for p in f.parts) and label_file(f).parent != f.parent]
    return proper or images


def _listed_images(described: Path, content: dict[str, Any], key: str) -> Iterator[Path]:
    """Images of a key of `data.yaml`: a folder, a text file with paths, or a list of either."""
    entries = content[key] if isinstance(content[key], list) else [content[key]]
    base = str(content.get("path") or "")
    for entry in entries:
        place = _resolve(described.parent, base, str(entry), least=2)
        if place is None:
            raise UserError(f"{described}: {key}: {entry} does not exist beside it; correct the path.")
        if place.is_dir():
            yield from Folder(place).images
            continue
        for n, line in enumerate(read_text(place).splitlines(), start=1):
            if line.strip():
                image = _resolve(place.parent, base, line.strip()) or _resolve(described.parent, base, line.strip())
                if image is None or image.suffix.lower() not in IMAGE_SUFFIXES:
                    raise UserError(f"{place}, line {n}: image {line.strip()} does not exist; correct the path.")
                yield image


def _resolve(beside: Path, base: str, entry: str, least: int = 1) -> Path | None:
    """A path of `data.yaml` or of a list.

    Roboflow's begin with one `..` too many, and other files have paths of the machine or folder that they were made in:
    then as many of a path's last parts as there are beside the file.

    Args:
        beside: folder of the file.
        base: the `path` in `data.yaml`.
        entry: the path.
        least: parts that must be left: one alone, such as `images`, is the end of paths to all splits.
    """
    relative = entry.replace("\\", "/")
    places = [beside / base / relative, beside / relative, Path(base) / relative]
    parts = [part for part in Path(base, relative).parts if part not in ("..", ".", "/")]
    own = len([part for part in Path(relative).parts if part not in ("..", ".", "/")])
    places += [beside.joinpath(*parts[n:]) for n in range(len(parts)) if len(parts) - n >= min(own, least)]
    return next((p for p in places if _exists(p)), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _names(source: Source, described: Path | None, images: list[Path]) -> tuple[dict[int, str], Path]:
    """Class names by number, and the file that has them."""
    top = [label_file(images[0]).parent, images[0].parent] if images else []
    folders = [source.finder.path, *top, *(p for f in [source.finder.path, *top] for p in list(f.parents)[:2])]
    for folder in [described.parent] if described else dict.fromkeys(folders):
        yamls = [described] if described else [f for f in sorted(folder.glob("*.y*ml")) if _is_description(f)]
        for file in yamls:
            return _yaml_names(file, read_yaml(file)["names"]), file
        for name in NAME_FILES:
            file = folder / name
            if file.is_file():
                lines = [line.strip() for line in read_text(file).splitlines()]
                return dict(enumerate(line for line in lines if line)), file
    raise UserError(
        f"{source.path}: YOLO's label files hold class numbers, and there is neither a data.yaml with names nor a "
        "classes.txt with one name a line; add one."
    )


def _yaml_names(file: Path, names: object) -> dict[int, str]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise UserError(f"{file}: names is neither a list nor a table of class names by number.")
    try:
        return {int(key): str(value) for key, value in sorted(names.items(), key=lambda item: int(item[0]))}
    except (ValueError, TypeError) as e:
        raise UserError(f"{file}: the keys of names must be whole numbers.") from e


def _add(
    builder: CocoBuilder, image: dict, words: list[str], names: dict[int, str], where: str, names_file: Path
) -> None:
    values = [number(word, where, f"word {n}") for n, word in enumerate(words, start=1)]
    if len(values) != 5 and not (len(values) >= 7 and len(values) % 2):
        raise UserError(
            f"{where}: {len(values)} numbers are neither a box (class x y width height) nor a polygon "
            "(class x y x y x y …)."
        )
    index, values = values[0], values[1:]
    if index not in names:
        raise UserError(f"{where}: class {words[0]} is not among the {len(names)} of {names_file}.")
    if not all(-SLACK <= v <= 1 + SLACK for v in values):
        raise UserError(f"{where}: coordinates are fractions of the image's size, from 0 to 1, not {max(values):g}.")
    width, height = image["width"], image["height"]
    scaled = [v * (height if n % 2 else width) for n, v in enumerate(values)]
    label = names[int(index)]
    if len(scaled) > 4:
        builder.add(image, label, where, polygons=[[round(v, DIGITS) for v in scaled]])
        return
    x, y, w, h = scaled
    builder.add(image, label, where, box=[round(v, DIGITS) for v in (x - w / 2, y - h / 2, w, h)])


def _check_strays(images: list[Path]) -> None:
    """Raises UserError for a label file in `labels/` whose image is missing; beside images lie other texts too."""
    places = {(label_file(image).parent, image.parent) for image in images}
    for labels, folder in sorted(p for p in places if p[0] != p[1]):
        stems = {f.stem for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES}
        strays = [f for f in sorted(labels.glob("*.txt")) if f.stem not in stems and f.name not in NAME_FILES]
        if strays:
            raise UserError(f"{strays[0]}: its image is missing from {folder}; put it there or remove the label file.")
