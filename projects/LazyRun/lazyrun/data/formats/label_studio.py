"""Label Studio: its JSON export of image annotations; coordinates are in percent."""

import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from lazyrun.data.formats.content import AnnotatedSet, CocoBuilder
from lazyrun.data.formats.files import ImageFinder
from lazyrun.data.formats.shapes import ellipse, rotated_box
from lazyrun.data.formats.source import Source
from lazyrun.data.formats.values import entries, number, numbers, table
from pretrain.common.errors import UserError
from pretrain.common.images import IMAGE_SUFFIXES

__all__ = ["looks_like_label_studio", "read_label_studio"]

NAME = "Label Studio"
KINDS = ("rectanglelabels", "polygonlabels", "ellipselabels")
WITHOUT_AREA = ("keypointlabels", "vectorlabels")
DIGITS = 4
"""Decimals of a pixel that are kept."""


def looks_like_label_studio(content: object) -> bool:
    if not isinstance(content, list) or not content or not all(isinstance(task, dict) for task in content):
        return False
    return isinstance(content[0].get("data"), dict) and bool({"annotations", "completions"} & set(content[0]))


def read_label_studio(source: Source) -> AnnotatedSet:
    """Rectangles, polygons and ellipses.

    Of several annotations of a task the one marked as ground truth is taken, else the first that was not cancelled. A
    task annotated with nothing is background; one without annotation is left out. A rotated rectangle becomes the
    upright one around it.

    Raises:
        UserError: an image is missing, or a result is none of these shapes.
    """
    file = source.files[0]
    builder = CocoBuilder()
    bare = several = 0
    for task in source.parsed:
        where = f"{file}: task {task.get('id')}"
        shapes, image = [], None
        with builder.collecting():
            results, count = _results(task, where)
            several += count > 1
            if results is None:
                bare += 1
                continue
            shapes = [r for r in results if str(table(r, where, "a result").get("type")).endswith("labels")]
            image = builder.image(_find(source.finder, file, task, where), _size(shapes, where), where)
        for index, result in enumerate(shapes if image else (), start=1):
            assert image is not None, "without an image nothing is read"
            with builder.collecting():
                _add(builder, image, result, f"{where}, result {result.get('id') or index}")
    if bare:
        builder.notes.append(f"{bare} tasks without annotation are left out")
    if several:
        builder.notes.append(f"{several} tasks have several annotations, of which one is read")
    return builder.finish(source.path, NAME)


def _results(task: dict[str, Any], where: str) -> tuple[list | None, int]:
    """What one annotation of a task holds, and how many there are."""
    annotations = task.get("annotations") or task.get("completions") or []
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise UserError(f"{where}: its annotations are numbers; export as JSON, with the annotations in full.")
    kept = [a for a in annotations if not a.get("was_cancelled")]
    chosen = next((a for a in kept if a.get("ground_truth")), kept[0] if kept else None)
    return (None if chosen is None else entries(chosen.get("result"), where, "result")), len(kept)


def _find(finder: ImageFinder, file: Path, task: dict[str, Any], where: str) -> Path:
    """The image of a task; Label Studio puts eight digits before the names of uploaded files."""
    data = task["data"]
    texts = [data["image"]] if isinstance(data.get("image"), str) else [v for v in data.values() if isinstance(v, str)]
    names = [name for name in map(_path_of, texts) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not names:
        raise UserError(f"{where}: its data names no image file.")
    try:
        return finder.find(names[0], file)
    except UserError:
        without = re.sub(r"^[0-9a-f]{8}-", "", Path(names[0]).name)
        if without == Path(names[0]).name:
            raise
        return finder.find(without, file)


def _path_of(text: str) -> str:
    """The path in `/data/upload/1/a.jpg`, `/data/local-files/?d=folder/a.jpg` or a URL, without a slash in front."""
    url = urlparse(text)
    local = parse_qs(url.query).get("d")
    return (local[0] if local else unquote(url.path)).lstrip("/")


def _size(results: list[dict], where: str) -> tuple[int, int] | None:
    """Width and height of the image, which every result repeats."""
    for result in results:
        if result.get("original_width") and result.get("original_height"):
            width, height = numbers(result, ("original_width", "original_height"), where)
            return int(width), int(height)
    return None


def _add(builder: CocoBuilder, image: dict, result: dict[str, Any], where: str) -> None:
    kind, value = result["type"], table(result.get("value"), where, "value")
    size = width, height = image["width"], image["height"]
    if kind in WITHOUT_AREA:
        builder.skip(where)
        return
    if kind not in KINDS:
        raise UserError(
            f"{where}: {kind} are not read, but {', '.join(KINDS)} are; for brushes export as COCO or PNG masks."
        )
    if result.get("image_rotation"):
        raise UserError(f"{where}: the image was annotated rotated; rotate the file itself and annotate it upright.")
    labels = value.get(kind)
    label = labels[0] if isinstance(labels, list) and len(labels) == 1 else None
    if kind == "polygonlabels":
        builder.add(image, label, where, polygons=[_polygon(value, size, where)])
        return
    degrees = number(value.get("rotation") or 0, where, "rotation")
    if kind == "ellipselabels":
        x, y, rx, ry = numbers(value, ("x", "y", "radiusX", "radiusY"), where)
        axes = x * width / 100, y * height / 100, rx * width / 100, ry * height / 100
        builder.add(image, label, where, polygons=[ellipse(*axes, size, math.radians(degrees))])
        return
    x, y, w, h = numbers(value, ("x", "y", "width", "height"), where)
    box = [x * width / 100, y * height / 100, w * width / 100, h * height / 100]
    if degrees:
        box = rotated_box(box, degrees, (box[0], box[1]))
    builder.add(image, label, where, box=[round(v, DIGITS) for v in box])


def _polygon(value: dict[str, Any], size: tuple[int, int], where: str) -> list[float]:
    points = value.get("points")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise UserError(f"{where}: its points are not pairs of numbers; correct or remove it.")
    return [
        round(number(v, where, "a coordinate") * side / 100, DIGITS)
        for p in points
        for v, side in zip(p, size, strict=True)
    ]
