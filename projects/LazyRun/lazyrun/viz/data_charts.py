"""Charts of annotated sets: objects of the classes, sizes against what the model sees, objects per image."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lazyrun.data.inspection.figures import SetFigures
from lazyrun.data.inspection.model_input import ModelInput
from lazyrun.data.inspection.table import shortened

__all__ = ["class_chart", "image_chart", "object_chart"]

MOST_CLASSES = 40
"""Most classes of the chart; the table has all."""

NAME_LENGTH = 40

BINS = 40

Sets = Mapping[str, SetFigures]


def class_chart(sets: Sets) -> Figure:
    """A bar for every class and set, the most frequent class on top."""
    totals: dict[str, int] = {}
    for s in sets.values():
        for name, count in s.objects_of.items():
            totals[name] = totals.get(name, 0) + count
    names = sorted(totals, key=lambda name: totals[name])[-MOST_CLASSES:]
    figure = Figure(figsize=(7.2, 1.2 + 0.22 * len(sets) * max(len(names), 2)), layout="constrained")
    axes = figure.subplots()
    thickness = 0.8 / len(sets)
    for i, (split, s) in enumerate(sets.items()):
        values = [s.objects_of.get(name, 0) for name in names]
        places = np.arange(len(names)) + (len(sets) / 2 - i - 0.5) * thickness
        bars = axes.barh(places, values, thickness * 0.92, label=split, color=_colour(i))
        axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_yticks(np.arange(len(names)), [shortened(name, NAME_LENGTH) for name in names])
    axes.margins(x=0.1, y=0.01)
    axes.grid(axis="y", visible=False)
    few = f" of the {MOST_CLASSES} most frequent classes" if len(totals) > MOST_CLASSES else ""
    axes.set_xlabel(f"objects{few}")
    _legend(axes, sets)
    return figure


def object_chart(sets: Sets, model: ModelInput) -> Figure:
    """Sizes of objects as the model sees them, with its anchors, and the longer sides of images."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    sides = {n: s.sides * model.scale(s.image_sizes)[s.image_of] for n, s in sets.items() if len(s.object_sizes)}
    _logarithmic(left, sides, [*model.anchors, model.max_size or 1])
    for anchor in model.anchors:
        left.axvline(anchor, color="#8250df", linestyle="--", linewidth=1)
    _mark(left, model.anchors[:1], "#8250df", "--", f"anchors {', '.join(f'{a:g}' for a in model.anchors)}")
    _mark(left, [model.max_size] if model.max_size else [], "#bc4c00", "-", f"image size {model.max_size}")
    left.set(xlabel=f"√(width · height) in pixels, images with {model}", ylabel="objects, %")
    left.set_title("Objects at the model")
    images = {n: s.image_sizes.max(1).astype(float) for n, s in sets.items() if len(s.image_sizes)}
    _logarithmic(right, images, [model.max_size or 1])
    _mark(right, [model.max_size] if model.max_size else [], "#bc4c00", "-", f"image size {model.max_size}")
    right.set(xlabel="longer side of the images in pixels, as they are", ylabel="images, %")
    right.set_title("Images")
    for axes in (left, right):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False)
    return figure


def image_chart(sets: Sets, model: ModelInput) -> Figure:
    """How many objects images have."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    most = max((int(s.per_image.max()) for s in sets.values() if len(s.per_image)), default=0)
    step = max(1, -(-(most + 1) // BINS))
    edges = (np.arange(0, most + step + 1, step) - 0.5).tolist()
    for i, (split, s) in enumerate(sets.items()):
        if len(s.per_image):
            weights = np.full(len(s.per_image), 100 / len(s.per_image))
            axes.hist(s.per_image, edges, weights=weights, label=split, color=_colour(i), **_style(i))
    if most >= model.max_detections / 2:
        _mark(axes, [model.max_detections], "#cf222e", "-", f"most detections {model.max_detections}")
    axes.set(xlabel="objects in an image", ylabel="images, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, fontsize=8, frameon=False)
    return figure


def _logarithmic(axes: Axes, values: Mapping[str, np.ndarray], marks: list[float]) -> None:
    """Histograms in percent over a logarithmic axis that holds the marks, too."""
    everything = np.concatenate([*values.values(), marks])
    everything = everything[everything > 0]
    low, high = everything.min() / 1.1, everything.max() * 1.1
    edges = np.geomspace(low, high, BINS + 1).tolist()
    for i, (split, some) in enumerate(values.items()):
        weights = np.full(len(some), 100 / len(some))
        axes.hist(some, edges, weights=weights, label=split, color=_colour(i), **_style(i))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(low, high)


def _mark(axes: Axes, places: list[float] | tuple[float, ...], colour: str, style: str, label: str) -> None:
    for place in places:
        axes.axvline(place, color=colour, linestyle=style, linewidth=1.2, label=label)


def _colour(index: int) -> str:
    return ("#0969da", "#d4a72c")[index % 2]  # seen on light and dark


def _style(index: int) -> dict:
    """The first set is filled, the second drawn over it as an outline."""
    return {"histtype": "stepfilled", "alpha": 0.75} if index == 0 else {"histtype": "step", "linewidth": 1.8}


def _legend(axes: Axes, sets: Sets) -> None:
    if len(sets) > 1:
        axes.legend(loc="lower right", fontsize=8, frameon=False)
