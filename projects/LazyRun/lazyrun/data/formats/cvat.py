"""CVAT: its own XML, "CVAT for images 1.1"."""

from collections import defaultdict
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from lazyrun.data.formats.content import AnnotatedSet, CocoBuilder
from lazyrun.data.formats.files import read_xml
from lazyrun.data.formats.shapes import corners_box, ellipse, rotated_box, window_mask
from lazyrun.data.formats.source import Source
from lazyrun.data.formats.split_names import name_of_part, split_in
from lazyrun.data.formats.values import number, numbers
from pretrain.common.errors import UserError

__all__ = ["looks_like_cvat", "read_cvat"]

NAME = "CVAT for images"
WITHOUT_AREA = ("points", "polyline")
NO_SHAPES = ("tag", "attribute")


def looks_like_cvat(root: Element) -> bool:
    return root.tag == "annotations"


def read_cvat(source: Source) -> AnnotatedSet:
    """Boxes, polygons, ellipses and masks; polygons and masks of one class and one group are parts of one object.

    All images of the subset are read; those without shapes are background. Several files, of jobs or tasks, are one
    set. The classes are those that the tasks define. A rotated box becomes the upright one around it.

    Raises:
        UserError: it is a video's file, an image is missing, or a shape is none of these.
    """
    roots = {file: _root(file) for file in source.files}
    labels = [label for root in roots.values() for label in root.iterfind("meta//labels/label")]
    names = [(label.findtext("name") or "").strip() for label in labels]
    builder = CocoBuilder(list(dict.fromkeys(names)) or None)
    images = [(file, element) for file, root in roots.items() for element in root.findall("image")]
    part = name_of_part((_subset(element) for _, element in images), source.path, source.split)
    chosen = [(file, element) for file, element in images if not part or _subset(element) == part]
    for file, element in chosen:
        name, subset = element.get("name") or "", element.get("subset")
        where = f"{file}: image {name}"
        with builder.collecting():
            width, height = numbers(element, ("width", "height"), where)
            found = source.finder.find(f"{subset}/{name}" if subset else name, file)
            image = builder.image(found, (int(width), int(height)), where)
            if image:
                _add_objects(builder, image, element, where)
    if part:
        builder.notes.append(f"its subset {part!r}, {len(chosen)} of {len(images)} images")
    return builder.finish(source.path, NAME)


def _root(file: Path) -> Element:
    root = read_xml(file)
    if root.find("track") is not None:
        raise UserError(f"{file} is CVAT's format for videos (it has tracks); export as 'CVAT for images 1.1'.")
    return root


def _subset(image: Element) -> str:
    """The split that an image's subset is, or ""."""
    return split_in(image.get("subset") or "")


def _add_objects(builder: CocoBuilder, image: dict, element: Element, where: str) -> None:
    size = image["width"], image["height"]
    groups: dict[object, list[tuple[str, Element]]] = defaultdict(list)
    for index, shape in enumerate((s for s in element if s.tag not in NO_SHAPES), start=1):
        place = f"{where}, {shape.tag} (shape {index})"
        if shape.tag in WITHOUT_AREA:
            builder.skip(place)
        elif shape.tag == "box":
            builder.add(image, shape.get("label"), place, box=_box(shape, place))
        elif shape.tag == "ellipse":
            cx, cy, rx, ry = numbers(shape, ("cx", "cy", "rx", "ry"), place)
            turn = np.radians(number(shape.get("rotation", 0), place, "rotation"))
            outline = ellipse(cx, cy, rx, ry, size, turn)
            builder.add(image, shape.get("label"), place, polygons=[outline])
        elif shape.tag in ("polygon", "mask"):
            group = shape.get("group_id") or "0"
            key = index if group == "0" else (shape.tag, group, shape.get("label"))
            groups[key].append((place, shape))
        else:
            raise UserError(f"{place}: shapes of this type are not read; make it a polygon or remove it.")
    for parts in groups.values():
        place, first = parts[0]
        if first.tag == "polygon":
            polygons = [_polygon(shape, place) for place, shape in parts]
            builder.add(image, first.get("label"), place, polygons=polygons)
        else:
            masks = [_mask(shape, size, place) for place, shape in parts]
            builder.add(image, first.get("label"), place, mask=np.any(masks, axis=0))


def _box(shape: Element, where: str) -> list[float]:
    left, top, right, bottom = numbers(shape, ("xtl", "ytl", "xbr", "ybr"), where)
    box = corners_box(left, top, right, bottom)
    degrees = number(shape.get("rotation", 0), where, "rotation")
    return rotated_box(box, degrees, ((left + right) / 2, (top + bottom) / 2)) if degrees else box


def _polygon(shape: Element, where: str) -> list[float]:
    """`x,y;x,y;…`."""
    points = [point.split(",") for point in (shape.get("points") or "").split(";")]
    if any(len(point) != 2 for point in points):
        raise UserError(f"{where}: its points are not pairs of numbers; correct or remove it.")
    return [number(v, where, "a coordinate") for point in points for v in point]


def _mask(shape: Element, size: tuple[int, int], where: str) -> np.ndarray:
    """Run lengths of a window of the image, row by row, beginning with what is not the object."""
    left, top, width, height = (int(v) for v in numbers(shape, ("left", "top", "width", "height"), where))
    runs = [int(number(v, where, "rle")) for v in (shape.get("rle") or "").split(",")]
    if min(runs) < 0 or sum(runs) != width * height:
        raise UserError(f"{where}: its rle does not cover {width}x{height} pixels; draw it again or remove it.")
    window = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return window_mask(window, left, top, size)
