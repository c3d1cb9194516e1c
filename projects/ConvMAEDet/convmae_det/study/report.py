"""What a study has measured, as a table, a picture and JSON."""

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pretrain.common.files import replacing, save_json

__all__ = ["clothing_table", "nuclei_table", "plot_nuclei", "save_results", "targets_table"]

NAMES = {
    "random": "random weights",
    "convmae": "ConvMAE",
    "fastconvmae": "FastConvMAE",
    "rgb": "pixels",
    "ema": "pixels and average",
    "mimic": "pixels, mimicking a teacher",
}
COLOURS = {"random": "#777777", "convmae": "#0b7a75", "fastconvmae": "#d1495b"}
Rows = Sequence[dict[str, Any]]


def _values(rows: Rows, key: str, **wanted: Any) -> list[float]:
    return [row[key] for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def _summary(values: Sequence[float]) -> str:
    """Mean, and the range where there are several."""
    if not values:
        return "-"
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _epochs(rows: Rows, method: str) -> int:
    """Epochs of pretraining of the arms that have every number of labels."""
    return max(row["epochs"] for row in rows if row["method"] == method)


def nuclei_table(rows: Rows) -> str:
    """Box AP, mean and range over the seeds: a line a number of labelled images, then one a length of pretraining."""
    methods = [m for m in NAMES if any(row["method"] == m for row in rows)]
    columns = [NAMES[m] + (f", {_epochs(rows, m)} epochs" if m != "random" else "") for m in methods]
    by_labels = [
        [
            str(labels),
            *(_summary(_values(rows, "AP", method=m, epochs=_epochs(rows, m), labels=labels)) for m in methods),
        ]
        for labels in sorted({row["labels"] for row in rows})
    ]
    curve = [[str(epochs), str(labels), _summary(values)] for labels, epochs, values in _over_epochs(rows) if values]
    return "\n\n".join(
        [
            _table(["labelled images", *columns], by_labels),
            _table(["epochs of ConvMAE", "labelled images", "box AP"], curve),
        ]
    )


def _over_epochs(rows: Rows) -> list[tuple[int, int, list[float]]]:
    """Labelled images, epochs of ConvMAE (0: random weights) and AP values of the curve over pretraining."""
    shorter = [row for row in rows if row["method"] == "convmae" and row["epochs"] < _epochs(rows, "convmae")]
    if not shorter:
        return []
    labels = shorter[0]["labels"]
    points = [(0, _values(rows, "AP", method="random", labels=labels))]
    for epochs in sorted({row["epochs"] for row in rows if row["method"] == "convmae"}):
        points.append((epochs, _values(rows, "AP", method="convmae", epochs=epochs, labels=labels)))
    return [(labels, epochs, values) for epochs, values in points]


def clothing_table(rows: Rows) -> str:
    """Top-1 accuracy in percent, mean and range over the seeds, a line a measurement."""
    methods = [m for m in NAMES if any(row["method"] == m for row in rows)]
    kinds = [("nearest neighbours", "knn", 1.0), ("linear probe", "linprobe", 1.0)]
    fractions = sorted({row["fraction"] for row in rows if row["measure"] == "finetune"})
    kinds += [(f"fine-tuning, {fraction:.0%} of the labels", "finetune", fraction) for fraction in fractions]
    lines = [
        [name, *(_summary(_values(rows, "acc1", method=m, measure=measure, fraction=fraction)) for m in methods)]
        for name, measure, fraction in kinds
    ]
    return _table(["", *(NAMES[m] for m in methods)], lines)


def targets_table(rows: Rows) -> str:
    """:func:`clothing_table`, and the CPU time of each run's pretraining."""
    methods = [m for m in NAMES if any(row["method"] == m for row in rows)]
    seconds = [_summary(_values(rows, "pretraining_seconds", method=m, measure="knn")) for m in methods]
    return f"{clothing_table(rows)}\n| pretraining, CPU seconds | {' | '.join(seconds)} |"


def plot_nuclei(rows: Rows, path: Path) -> None:
    """AP over labelled images, and over epochs of pretraining; points are runs, lines go through their means."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for method in COLOURS:
            chosen = [r for r in rows if r["method"] == method and r["epochs"] == _epochs(rows, method)]
            _curve(left, chosen, lambda r: r["labels"], COLOURS[method], NAMES[method])
        left.set_xscale("log")
        ticks = sorted({row["labels"] for row in rows})
        left.set_xticks(ticks, [str(t) for t in ticks])
        left.minorticks_off()
        left.set(xlabel="labelled images", ylabel="box AP")
        left.legend(frameon=False)
        points = [{"x": epochs, "AP": value} for _, epochs, values in _over_epochs(rows) for value in values]
        if points:
            _curve(right, points, lambda r: r["x"], COLOURS["convmae"], "")
            labels = _over_epochs(rows)[0][0]
            right.set(xlabel="epochs of ConvMAE pretraining", ylabel="box AP", title=f"{labels} labelled images")
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=130, format="png")


def _curve(axes: Axes, rows: Rows, place: Callable[[dict], float], colour: str, name: str) -> None:
    xs = sorted({place(row) for row in rows})
    means = [statistics.mean(row["AP"] for row in rows if place(row) == x) for x in xs]
    axes.plot(xs, means, color=colour, label=name)
    axes.plot([place(row) for row in rows], [row["AP"] for row in rows], "o", color=colour, markersize=3, alpha=0.6)


def save_results(rows: Rows, path: Path, command: Sequence[str]) -> None:
    """All measurements with what they were made by, as JSON."""
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    kept = [{key: value for key, value in row.items() if key != "command"} for row in rows]
    save_json({"command": list(command), **machine, "results": kept}, path)
