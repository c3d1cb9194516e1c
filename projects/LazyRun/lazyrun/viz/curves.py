"""Training curves from the logs that runs leave: `metrics.json` of detectron2's trainer, `log.jsonl` of pretraining."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pretrain.common.errors import UserError

__all__ = ["Curves", "plot_runs", "read_curves", "running_median"]

Curves = dict[str, tuple[np.ndarray, np.ndarray]]
"""Places (iterations or epochs) and values by name, places ascending."""

PANELS = {
    "loss": (("total_loss", "-"), ("train_loss", "-"), ("val_loss", "--")),
    "learning rate": (("lr", "-"),),
    "AP": (("bbox/AP", "-"), ("segm/AP", "--")),
    "mIoU and pACC / %": (("sem_seg/mIoU", "-"), ("sem_seg/pACC", "--")),
    "nearest neighbours / %": (("knn_acc1", "-"), ("knn_acc5", "--")),
    "peak memory / MB": (("max_mem_mb", "-"), ("peak_memory_mb", "-")),
}
"""What is drawn: names in the logs, with a line style each."""

PART = "train_loss_"
"""What the names of the losses begin with that a training loss is the sum of, if any; drawn in a panel of their own."""

STYLES = ("-", "--", ":", "-.")

OVER_EPOCHS = {"train_loss", "knn_acc1"}
"""Names that tell a `log.jsonl`: the first line has one of them."""

SPARSE = 12
"""Curves of at most so many points show each of them."""


def read_curves(path: Path) -> Curves:
    """Every number in a log, by name, over iterations (`metrics.json`) or epochs (`log.jsonl`).

    A run that was killed and resumed writes some iterations again: what comes last in the file counts. Lines that a
    kill cut short are left out, so are values that are not finite.

    Args:
        path: the log, or the folder of a run.

    Raises:
        UserError: there is no log, or nothing in it.
    """
    path = find_log(path)
    values: dict[str, dict[float, float]] = {}
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        place = row.get("iteration", row.get("epoch")) if isinstance(row, dict) else None
        if place is None:
            continue
        for name, value in row.items():
            if name in ("iteration", "epoch") or not isinstance(value, int | float):
                continue
            curve = values.setdefault(name, {})
            while curve and next(reversed(curve)) >= place:  # the run was set back to here
                curve.popitem()
            curve[place] = value
    if not values:
        raise UserError(f"{path} holds no measurements yet: let the run reach its first log line.")
    return {name: _finite(curve) for name, curve in values.items()}


def find_log(path: Path) -> Path:
    """The log itself, or the one in a run's folder.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} does not exist; name a metrics.json, a log.jsonl, or the folder of a run.")
    found = [path / name for name in ("metrics.json", "log.jsonl") if (path / name).is_file()]
    if not found:
        raise UserError(f"{path} holds neither metrics.json nor log.jsonl; name the folder of a run.")
    return found[0]


def _finite(curve: dict[float, float]) -> tuple[np.ndarray, np.ndarray]:
    places, values = np.array(list(curve), float), np.array(list(curve.values()), float)
    return places[np.isfinite(values)], values[np.isfinite(values)]


def running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Median of the `window` points around each; at the ends, of those that there are."""
    before, after = (window - 1) // 2, window // 2
    return np.array([np.median(values[max(0, i - before) : i + after + 1]) for i in range(len(values))])


def plot_runs(runs: dict[str, Curves], smooth: int = 1) -> Figure:
    """A panel for each of :data:`PANELS` that any run has something for; one colour a run.

    Args:
        runs: curves by the run's name.
        smooth: points of the running median that is drawn over the loss, 1 for none.

    Raises:
        UserError: the runs have none of these curves, or one counts iterations and another epochs.
    """
    panels = {
        title: lines
        for title, lines in _panels(runs.values()).items()
        if any(n in run for n, _ in lines for run in runs.values())
    }
    if not panels:
        raise UserError(f"{', '.join(runs)}: there is neither loss, learning rate, accuracy nor memory to plot.")
    if len(kinds := {not OVER_EPOCHS.isdisjoint(run) for run in runs.values()}) > 1:
        raise UserError("Pretraining runs count epochs, all others iterations: plot them one kind at a time.")
    figure = Figure(figsize=(11, 1.0 + 3.2 * -(-len(panels) // 2)), layout="constrained")
    grid = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False).flat
    colours = matplotlib.color_sequences["tab10"]
    for axes, (title, lines) in zip(grid, panels.items(), strict=False):
        for colour, run in zip(_cycle(colours, len(runs)), runs.values(), strict=True):
            for name, style in lines:
                if name in run and len(run[name][0]):
                    _draw_curve(axes, *run[name], style, colour, smooth if title.startswith("loss") else 1)
        axes.set_title(title)
        axes.set_xlabel("epoch" if kinds == {True} else "iteration")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        _limit(axes, title)
        _label_styles(axes, [(n, s) for n, s in lines if any(n in run for run in runs.values())])
    for axes in list(figure.axes)[len(panels) :]:
        axes.set_visible(False)
    handles = [matplotlib.lines.Line2D([], [], color=c, lw=2) for c in _cycle(colours, len(runs))]
    legend = figure.legend(handles, list(runs), loc="outside upper left", ncols=min(3, len(runs)), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a name is a $
    return figure


def _panels(runs: Iterable[Curves]) -> dict[str, tuple[tuple[str, str], ...]]:
    """:data:`PANELS`, and after the loss the losses it is made of."""
    parts = dict.fromkeys(name for run in runs for name in run if name.startswith(PART))
    lines = tuple((name, STYLES[i % len(STYLES)]) for i, name in enumerate(parts))
    return {"loss": PANELS["loss"], "losses it is made of": lines, **PANELS}


def _cycle(colours: Sequence, count: int) -> list:
    return [colours[i % len(colours)] for i in range(count)]


def _draw_curve(axes: Axes, places: np.ndarray, values: np.ndarray, style: str, colour: Any, smooth: int) -> None:
    marker = "o" if len(places) <= SPARSE else None
    if smooth > 1:
        axes.plot(places, values, color=colour, alpha=0.35, lw=0.8)
        values, marker = running_median(values, smooth), None
    axes.plot(places, values, style, color=colour, lw=1.5, marker=marker, ms=3)


def _limit(axes: Axes, title: str) -> None:
    """Everything but the loss begins at zero, so that a small change does not look like a large one."""
    if not title.startswith("loss"):
        axes.set_ylim(bottom=0, top=1.08 * max((np.max(line.get_ydata()) for line in axes.lines), default=0) or 1)
    if title == "learning rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _label_styles(axes: Axes, lines: Sequence[tuple[str, str]]) -> None:
    """Names the curves of a panel with more than one."""
    if len(lines) > 1:
        handles = [matplotlib.lines.Line2D([], [], color="gray", ls=style) for _, style in lines]
        axes.legend(handles, [name for name, _ in lines], frameon=False, fontsize=9)
