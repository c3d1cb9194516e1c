"""VGG Image Annotator (VIA) 1 and 2: the annotations exported as JSON, or the project of version 2."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lazyrun.data.formats.content import AnnotatedSet, CocoBuilder
from lazyrun.data.formats.shapes import ellipse
from lazyrun.data.formats.source import Source
from lazyrun.data.formats.values import entries, number, numbers, table
from pretrain.common.errors import UserError

__all__ = ["looks_like_via", "read_via"]

NAME = "VIA"
CLASS_ATTRIBUTES = ("class", "label", "name", "category", "type", "object")
"""Which of several region attributes is the class, best first."""

WITHOUT_AREA = ("point", "polyline", "line")


def looks_like_via(content: object) -> bool:
    if not isinstance(content, dict):
        return False
    if "_via_img_metadata" in content:
        return True
    return bool(content) and all(isinstance(e, dict) and {"filename", "regions"} <= set(e) for e in content.values())


def read_via(source: Source) -> AnnotatedSet:
    """Rectangles, polygons, circles and ellipses; images without regions are background.

    The class is the only region attribute, or the one called `class`, `label`, `name`, `category`, `type` or `object`.
    Without any attribute all are of the class `object`.

    Raises:
        UserError: an image is missing, a region has no class or is none of these shapes.
    """
    file, content = source.files[0], source.parsed
    images = table(content.get("_via_img_metadata", content), str(file), "_via_img_metadata")
    tables = [table(entry, str(file), key) for key, entry in images.items()]
    listed = [(str(entry.get("filename")), entry) for entry in tables]
    regions = [_regions(entry, f"{file}: {name}") for name, entry in listed]
    attribute = _class_attribute(file, [r for some in regions for r in some])
    names = _declared(file, content, attribute)
    builder = CocoBuilder(names if names else None)
    for (name, _), some in zip(listed, regions, strict=True):
        image = None
        with builder.collecting():
            image = builder.image(source.finder.find(name, file), None, f"{file}: {name}")
        for index, region in enumerate(some if image else (), start=1):
            assert image is not None, "without an image nothing is read"
            where = f"{file}: {name}, region {index}"
            with builder.collecting():
                _add(builder, image, region, "object" if attribute is None else _class_of(region, attribute), where)
    return builder.finish(source.path, NAME)


def _regions(entry: dict[str, Any], where: str) -> list[dict]:
    """Version 1 numbers the regions in a table, version 2 lists them."""
    listed = enumerate(entries(entry.get("regions"), where, "regions"), start=1)
    regions = [table(region, where, f"region {n}") for n, region in listed]
    for n, region in enumerate(regions, start=1):
        for key in ("shape_attributes", "region_attributes"):
            table(region.get(key), f"{where}, region {n}", key)
    return regions


def _class_attribute(file: Path, regions: Iterable[dict]) -> str | None:
    """The region attribute that holds the class; None if there are no attributes."""
    present = list(dict.fromkeys(key for r in regions for key in (r.get("region_attributes") or {})))
    if len(present) < 2:
        return present[0] if present else None
    known = {key.casefold(): key for key in present}
    chosen = next((known[name] for name in CLASS_ATTRIBUTES if name in known), None)
    if chosen is None:
        raise UserError(
            f"{file}: which of the region attributes {', '.join(present)} is the class is not known; call it 'class'."
        )
    return chosen


def _declared(file: Path, content: dict[str, Any], attribute: str | None) -> list[str]:
    """The options of the attribute in a project, in their order."""
    node = content
    for key in ("_via_attributes", "region", str(attribute), "options"):
        node = table(node.get(key), str(file), key)
    return [str(name) for name in node]


def _class_of(region: dict[str, Any], attribute: str) -> object:
    value = (region.get("region_attributes") or {}).get(attribute)
    if isinstance(value, dict):  # a checkbox: {"cat": true}
        ticked = [name for name, on in value.items() if on]
        return ticked[0] if len(ticked) == 1 else None
    return value


def _add(builder: CocoBuilder, image: dict, region: dict[str, Any], label: object, where: str) -> None:
    shape = region.get("shape_attributes") or {}
    size = image["width"], image["height"]
    kind = shape.get("name")
    if kind in WITHOUT_AREA:
        builder.skip(where)
    elif kind == "rect":
        builder.add(image, label, where, box=numbers(shape, ("x", "y", "width", "height"), where))
    elif kind == "circle":
        cx, cy, r = numbers(shape, ("cx", "cy", "r"), where)
        builder.add(image, label, where, polygons=[ellipse(cx, cy, r, r, size)])
    elif kind == "ellipse":
        cx, cy, rx, ry = numbers(shape, ("cx", "cy", "rx", "ry"), where)
        theta = number(shape.get("theta", 0), where, "theta")
        builder.add(image, label, where, polygons=[ellipse(cx, cy, rx, ry, size, theta)])
    elif kind == "polygon":
        builder.add(image, label, where, polygons=[_polygon(shape, where)])
    else:
        raise UserError(f"{where}: regions of type {kind!r} are not read; make it a polygon or remove it.")


def _polygon(shape: dict[str, Any], where: str) -> list[float]:
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not (isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)):
        raise UserError(f"{where}: all_points_x and all_points_y are not lists of one length; correct or remove it.")
    return [number(v, where, "a coordinate") for point in zip(xs, ys, strict=True) for v in point]
