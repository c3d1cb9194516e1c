"""LabelMe: a JSON file for each image, beside it or where its `imagePath` leads."""

import base64
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lazyrun.data.formats.content import AnnotatedSet, CocoBuilder, listed
from lazyrun.data.formats.files import read_json
from lazyrun.data.formats.shapes import corners_box, ellipse, pairs, window_mask
from lazyrun.data.formats.source import Source
from lazyrun.data.formats.split_names import part_of_split
from lazyrun.data.formats.values import number
from pretrain.common.errors import UserError

__all__ = ["looks_like_labelme", "read_labelme"]

NAME = "LabelMe"
WITHOUT_AREA = ("point", "points", "line", "linestrip")


def looks_like_labelme(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(source: Source) -> AnnotatedSet:
    """Polygons, rectangles, circles and masks; shapes of one class and one `group_id` are parts of one object.

    Raises:
        UserError: a file is not of this format, its image is missing, or a shape is none of these.
    """
    files, part = part_of_split(source.files, source.finder.path, source.split)
    builder = CocoBuilder()
    used: set[Path] = set()
    for file in files:
        with builder.collecting():
            content = read_json(file)
            if not looks_like_labelme(content):
                raise UserError(f"{file} is not a file of {NAME}, as others beside it are; move it away.")
            image_file = source.finder.find(str(content["imagePath"] or file.stem), file)
            used.add(image_file)
            image = builder.image(image_file, _size(content), str(file))
            if image:
                _add_objects(builder, image, content["shapes"], file)
    if part:
        builder.notes.append(f"its part {part!r}, {len(files)} of {len(source.files)} files")
    bare = [f for f in source.folder.images if f not in used] if source.folder and not part else []
    if bare:
        builder.notes.append(f"{len(bare)} images without JSON file are left out ({listed(f.name for f in bare)})")
    return builder.finish(source.path, NAME)


def _size(content: dict[str, Any]) -> tuple[int, int] | None:
    width, height = content.get("imageWidth"), content.get("imageHeight")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _add_objects(builder: CocoBuilder, image: dict, shapes: list, file: Path) -> None:
    """The shapes of one image, those of a group together."""
    size = image["width"], image["height"]
    groups: dict[object, list[tuple[str, dict]]] = defaultdict(list)
    for index, shape in enumerate(shapes, start=1):
        where = f"{file}: shape {index}"
        if not isinstance(shape, dict):
            raise UserError(f"{where}: it is no object of JSON; remove it.")
        if shape.get("shape_type") in WITHOUT_AREA:
            builder.skip(where)
            continue
        group = shape.get("group_id")
        groups[index if group is None else ("group", str(group), str(shape.get("label")))].append((where, shape))
    for parts in groups.values():
        where, first = parts[0]
        outlines = [_outline(shape, size, where) for where, shape in parts]
        masks = [mask for _, _, mask in outlines if mask is not None]
        polygons = [polygon for _, polygon, _ in outlines if polygon]
        boxes = [box for box, _, _ in outlines if box]
        if len([kind for kind in (masks, polygons, boxes) if kind]) > 1:
            raise UserError(f"{where}: shapes of one group_id are of several kinds; make them all polygons.")
        builder.add(
            image,
            first.get("label"),
            where,
            box=_around(boxes) if boxes else None,
            polygons=polygons,
            mask=np.any(masks, axis=0) if masks else None,
        )


def _outline(
    shape: dict[str, Any], size: tuple[int, int], where: str
) -> tuple[list[float] | None, list[float] | None, np.ndarray | None]:
    """Box, polygon or mask of a shape."""
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise UserError(f"{where}: its points are not pairs of numbers; correct or remove it.")
    points = [[number(v, where, "a coordinate") for v in point] for point in points]
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon":
        return None, pairs(points), None
    if kind not in ("rectangle", "circle", "mask"):
        raise UserError(f"{where}: shapes of type {kind!r} are not read; make it a polygon or remove it.")
    if len(points) != 2 and not (kind == "rectangle" and len(points) == 4):  # four of them since LabelMe 5.5
        raise UserError(f"{where}: a {kind} has two points, not {len(points)}; correct or remove it.")
    if kind == "circle":
        (cx, cy), (px, py) = points
        radius = float(np.hypot(px - cx, py - cy))
        return None, ellipse(cx, cy, radius, radius, size), None
    xs, ys = ([point[axis] for point in points] for axis in (0, 1))
    if kind == "rectangle":
        return corners_box(min(xs), min(ys), max(xs), max(ys)), None, None
    return None, None, window_mask(_decoded(shape.get("mask"), where), round(min(xs)), round(min(ys)), size)


def _decoded(mask: object, where: str) -> np.ndarray:
    """The PNG of a mask, which covers its two points, as bool."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(mask), validate=True))) as opened:
            return np.asarray(opened.convert("L")) > 0
    except (OSError, ValueError, SyntaxError) as e:
        raise UserError(f"{where}: its mask is not a PNG in base64; draw it again or remove it.") from e


def _around(boxes: list[list[float]]) -> list[float]:
    """The box around some boxes, each x, y, width, height."""
    return corners_box(
        min(x for x, _, _, _ in boxes),
        min(y for _, y, _, _ in boxes),
        max(x + w for x, _, w, _ in boxes),
        max(y + h for _, y, _, h in boxes),
    )
