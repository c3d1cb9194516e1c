"""Charts of a report: AP of every class, precision over recall."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lazyrun.evaluation.analysis import Evaluation
from lazyrun.viz.fonts import families_for

__all__ = ["class_ap_chart", "draw", "precision_recall_chart"]

TASKS = {"bbox": "boxes", "segm": "masks"}
MOST_CURVES = 8
"""Most classes whose curves are drawn; more would be hard to distinguish."""

_THEMES = {"light": ("#ffffff", "#1f2328", "#d0d7de"), "dark": ("#161b22", "#e6edf3", "#3d444d")}


@contextmanager
def _theme(name: str) -> Iterator[None]:
    background, text, line = _THEMES[name]
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), text)
    grounds = dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), background)
    lines = {"axes.edgecolor": line, "grid.color": line, "legend.edgecolor": line}
    style = {"axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False}
    plain = {"font.size": 10, "savefig.dpi": 110, "text.parse_math": False}  # names may have dollar signs
    settings: dict[Any, Any] = {**colours, **grounds, **lines, **style, **plain}
    with matplotlib.rc_context(settings):
        yield


def draw(chart: Callable[..., Figure], *args: Any, names: Iterable[str] = (), theme: str = "light") -> bytes:
    """A chart as PNG, `light` or `dark`; `names` are those of classes that it shows."""
    with _theme(theme), matplotlib.rc_context({"font.family": families_for("".join(names))}):
        figure = chart(*args)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def class_ap_chart(evaluations: Sequence[Evaluation]) -> Figure:
    """A bar for each class and task, best class on top; classes without ground truth are left out."""
    first = evaluations[0]
    classes = sorted((c for c, ap in first.class_ap.items() if np.isfinite(ap)), key=lambda c: first.class_ap[c])
    figure = Figure(figsize=(7.2, 1.0 + 0.24 * len(evaluations) * max(len(classes), 2)), layout="constrained")
    axes = figure.subplots()
    thickness = 0.8 / len(evaluations)
    for i, evaluation in enumerate(evaluations):
        values = np.nan_to_num([evaluation.class_ap[c] for c in classes])
        places = np.arange(len(classes)) + (len(evaluations) / 2 - i - 0.5) * thickness
        bars = axes.barh(places, values, thickness * 0.92, label=TASKS[evaluation.task])
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_yticks(np.arange(len(classes)), [f"{c}  ({first.class_count[c]})" for c in classes])
    axes.set_xlim(0, 100)
    axes.margins(y=0.01)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("AP (objects in brackets)")
    if len(evaluations) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.02), ncols=2, frameon=False, borderaxespad=-1.2)
    return figure


def precision_recall_chart(evaluation: Evaluation) -> Figure:
    """Two panels: the mean over classes at several IoU thresholds, and single classes at IoU 0.5."""
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    mean = _mean(evaluation.precision, axis=2)
    colours = matplotlib.colormaps["turbo"](np.linspace(0.12, 0.88, 5))  # seen on light and dark
    for colour, t in zip(colours, range(0, len(evaluation.iou), 2), strict=False):
        ap = 100 * _mean(mean[t])
        left.plot(evaluation.recall, mean[t], color=colour, label=f"IoU {evaluation.iou[t]:.2f}: AP {ap:.1f}")
    left.set_title(f"{TASKS[evaluation.task].capitalize()}, mean over classes")
    names = list(evaluation.class_count)
    present = [k for k, name in enumerate(names) if evaluation.class_count[name]]
    for k in sorted(present, key=lambda k: -evaluation.class_count[names[k]])[:MOST_CURVES]:
        curve = evaluation.precision[0, :, k]
        right.plot(evaluation.recall, curve, label=f"{names[k]}: AP50 {100 * _mean(curve):.1f}")
    few = f", the {MOST_CURVES} most frequent" if len(present) > MOST_CURVES else ""
    right.set_title(f"Classes at IoU 0.50{few}")
    for axes in (left, right):
        axes.set(xlabel="recall", xlim=(0, 1), ylim=(0, 1.03))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize=8, frameon=False)
    left.set_ylabel("precision")
    return figure


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean of what is not NaN; 0 where there is nothing else."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis) / np.maximum(known.sum(axis), 1)
