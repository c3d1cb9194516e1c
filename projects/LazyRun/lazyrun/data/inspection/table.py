"""The numbers of the sets of a training as one table, for the log, the console and the page."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from tabulate import tabulate

from lazyrun.data.inspection.figures import SetFigures
from lazyrun.data.inspection.model_input import ModelInput

__all__ = ["class_rows", "rows", "shortened", "text_table"]

CLASSES_IN_TEXT = 30
"""Most classes that the table in a log lists."""

NAME_LENGTH = 40
"""Most characters of a class name there."""

Row = tuple[str, list[str]]
"""What a row is about, and its value for each set."""


def rows(sets: Mapping[str, SetFigures], model: ModelInput) -> list[Row]:
    """Everything but the classes; a row without any value is left out."""
    columns = [_images(s) | _objects(s) | _sizes(s, model) for s in sets.values()]
    labels = dict.fromkeys(label for column in columns for label in column)
    table = [(label, [column.get(label, "") for column in columns]) for label in labels]
    return [(label, values) for label, values in table if any(values)]


def _images(s: SetFigures) -> dict[str, str]:
    count = len(s.image_sizes)
    cells = {"images": f"{count}", "without object": _part(int((s.per_image == 0).sum()), count)}
    if count:
        sizes = Counter((width, height) for width, height in s.image_sizes.tolist())
        (width, height), often = sizes.most_common(1)[0]
        ordered = sorted(sizes, key=lambda size: size[0] * size[1])
        span = f"{_by(ordered[0])} to {_by(ordered[-1])}"
        cells["image sizes"] = f"{width}x{height}" if len(sizes) == 1 else span
        cells["most frequent size"] = "" if len(sizes) == 1 else f"{_by((width, height))}, {_part(often, count)}"
        cells["pixels"] = ", ".join(f"{mode} {n}" for mode, n in s.modes.items())
    return cells


def _objects(s: SetFigures) -> dict[str, str]:
    count = len(s.object_sizes)
    cells = {
        "objects": f"{count}",
        "with masks": "" if set(s.masks) <= {"box alone"} else ", ".join(f"{k} {n}" for k, n in s.masks.items()),
        "crowds": f"{s.crowds}" if s.crowds else "",
        "boxes without area, left out": f"{s.without_area}" if s.without_area else "",
        "classes": f"{len(s.objects_of)}",
    }
    if count:
        middle, mean, most = np.median(s.per_image), s.per_image.mean(), s.per_image.max()
        cells["objects per image"] = f"median {middle:g}, mean {mean:.1f}, {most} at most"
    return cells


def _sizes(s: SetFigures, model: ModelInput) -> dict[str, str]:
    if not len(s.object_sizes):
        return {}
    count, sides = len(s.object_sizes), s.sides
    shares = [f"{100 * share:.0f} %" for share in _shares(sides)]
    seen = sides * model.scale(s.image_sizes)[s.image_of]
    cells = {
        "sides of objects, pixels": _spread(sides),
        "small / medium / large": " / ".join(shares),
        f"sides at the model ({model})": _spread(seen),
    }
    if model.anchors:
        least, most = model.anchors[0], model.anchors[-1]
        cells[f"below half of the least anchor ({least:g})"] = _part(int((seen < least / 2).sum()), count)
        cells[f"above twice the largest anchor ({most:g})"] = _part(int((seen > 2 * most).sum()), count)
    cells[f"images of more than {model.max_detections} objects"] = f"{(s.per_image > model.max_detections).sum()}"
    return cells


def _shares(sides: np.ndarray) -> np.ndarray:
    """Shares of COCO's small, medium and large objects, by the area of their boxes."""
    return np.bincount(np.digitize(sides, [32, 96]), minlength=3) / len(sides)


def shortened(text: str, length: int) -> str:
    """A text in one line, cut off with an ellipsis where it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _spread(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"median {_round(middle)}, 90 % from {_round(low)} to {_round(high)}"


def _round(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _part(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f} %)" if count else "0"


def class_rows(sets: Mapping[str, SetFigures]) -> list[tuple[str, list[tuple[int, int] | None]]]:
    """For every class its objects and the images with it in each set; None where a set does not have the class."""
    names = dict.fromkeys(name for s in sets.values() for name in s.objects_of)
    return [
        (name, [(s.objects_of[name], s.images_of[name]) if name in s.objects_of else None for s in sets.values()])
        for name in names
    ]


def text_table(sets: Mapping[str, SetFigures], model: ModelInput) -> str:
    """The table in plain text, with the objects of the classes."""
    body = [[label, *values] for label, values in rows(sets, model)]
    classes = class_rows(sets)
    for name, counts in classes[:CLASSES_IN_TEXT]:
        cells = ("-" if c is None else f"{c[0]} in {c[1]} images" for c in counts)
        body.append([f"class {shortened(name, NAME_LENGTH)}", *cells])
    if len(classes) > CLASSES_IN_TEXT:
        body.append([f"and {len(classes) - CLASSES_IN_TEXT} more classes"])
    return tabulate(body, headers=["", *sets], tablefmt="plain", disable_numparse=True)
