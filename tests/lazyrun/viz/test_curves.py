"""Reading the logs of runs, as kills and resumes leave them."""

import json

import numpy as np
import pytest

from lazyrun.viz.curves import plot_runs, read_curves, running_median
from pretrain.common.errors import UserError


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def test_resumed_run_counts_once_and_a_cut_line_is_left_out(tmp_path):
    first = [{"iteration": i, "total_loss": float(i)} for i in (19, 39, 59, 79)]
    again = [{"iteration": i, "total_loss": 100.0 + i} for i in (45, 65)]  # back at 40, with another log period
    path = write(tmp_path / "metrics.json", [*first, *again], '{"iteration": 85, "total_l')
    places, values = read_curves(path)["total_loss"]
    assert places.tolist() == [19, 39, 45, 65]
    assert values.tolist() == [19, 39, 145, 165]


def test_evaluation_written_before_an_earlier_iteration_is_kept(tmp_path):
    rows = [{"iteration": 10, "bbox/AP": 5.0}, {"iteration": 9, "lr": 0.1}, {"iteration": 20, "bbox/AP": float("nan")}]
    curves = read_curves(write(tmp_path / "metrics.json", rows).parent)
    assert curves["bbox/AP"][1].tolist() == [5.0] and curves["lr"][1].tolist() == [0.1]


def test_pretraining_log(tmp_path):
    rows = [{"epoch": i, "train_loss": 1.0, "val_loss": 2.0, "lr": 0.1, "precision": "float32"} for i in range(3)]
    curves = read_curves(write(tmp_path / "log.jsonl", rows).parent)
    assert sorted(curves) == ["lr", "train_loss", "val_loss"] and curves["val_loss"][0].tolist() == [0, 1, 2]
    titles = [axes.get_title() for axes in plot_runs({"pretraining": curves}).axes if axes.get_visible()]
    assert titles == ["loss", "learning rate"]


def test_losses_of_several_targets_have_a_panel(tmp_path):
    losses = {"train_loss": 3.0, "train_loss_rgb": 1.0, "train_loss_ema": 2.0}
    curves = read_curves(write(tmp_path / "log.jsonl", [{"epoch": i, **losses} for i in range(3)]))
    loss, parts = (axes for axes in plot_runs({"run": curves}, smooth=3).axes if axes.get_visible())
    assert (loss.get_title(), parts.get_title()) == ("loss", "losses it is made of")
    assert [text.get_text() for text in parts.get_legend().get_texts()] == ["train_loss_rgb", "train_loss_ema"]
    assert {line.get_linestyle() for line in parts.lines} == {"-", "--"}


def test_nearest_neighbours_begin_before_the_first_epoch(tmp_path):
    measured = {"knn_acc1": 40.0, "knn_acc5": 90.0}
    rows = [
        {"epoch": -1, **measured},
        *({"epoch": i, "train_loss": 1.0} | (measured if i == 2 else {}) for i in range(3)),
    ]
    whole = read_curves(write(tmp_path / "log.jsonl", rows))
    start = read_curves(write(tmp_path / "log.jsonl", rows[:1]))
    assert whole["knn_acc1"][0].tolist() == [-1, 2]
    figure = plot_runs({"whole": whole, "just begun": start})
    loss, knn = (axes for axes in figure.axes if axes.get_visible())
    assert knn.get_title() == "nearest neighbours / %" and knn.get_xlabel() == loss.get_xlabel() == "epoch"
    assert [line.get_xdata().tolist() for line in knn.lines] == [[-1, 2], [-1, 2], [-1], [-1]]


def test_several_runs_on_one_picture():
    run = {"total_loss": (np.arange(9), np.arange(9)), "bbox/AP": (np.array([8]), np.array([50.0]))}
    figure = plot_runs({"a": run, "b": {"total_loss": run["total_loss"]}}, smooth=3)
    loss, ap = (axes for axes in figure.axes if axes.get_visible())
    assert len(loss.lines) == 4 and len(ap.lines) == 1  # raw and smoothed for both runs
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_segmentation_run_gets_a_panel_of_its_metrics(tmp_path):
    measured = {"sem_seg/mIoU": 40.0, "sem_seg/pACC": 90.0, "sem_seg/IoU-star": 20.0}
    rows = [{"iteration": i, "total_loss": 1.0} | (measured if i % 2 else {}) for i in range(4)]
    run = read_curves(write(tmp_path / "metrics.json", rows))
    loss, metrics = (axes for axes in plot_runs({"a": run}).axes if axes.get_visible())
    assert loss.get_title() == "loss" and metrics.get_title() == "mIoU and pACC / %"
    assert [line.get_ydata().tolist() for line in metrics.lines] == [[40.0, 40.0], [90.0, 90.0]]
    assert [text.get_text() for text in metrics.get_legend().get_texts()] == ["sem_seg/mIoU", "sem_seg/pACC"]


def test_running_median():
    assert running_median(np.array([1.0, 9, 2, 3, 4]), 3).tolist() == [5, 2, 3, 3, 3.5]


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_curves(tmp_path / "none")
    with pytest.raises(UserError, match=r"holds neither metrics\.json nor log\.jsonl"):
        read_curves(tmp_path)
    with pytest.raises(UserError, match="holds no measurements yet"):
        read_curves(write(tmp_path / "metrics.json", []))
    with pytest.raises(UserError, match="neither loss, learning rate"):
        plot_runs({"a": {"time": (np.arange(2), np.arange(2))}})
    loss = (np.arange(2), np.arange(2))
    with pytest.raises(UserError, match="one kind at a time"):
        plot_runs({"a": {"total_loss": loss}, "b": {"train_loss": loss}})


def test_names_with_dollars_are_text(tmp_path):
    curves = read_curves(write(tmp_path / "metrics.json", [{"iteration": i, "total_loss": 1.0} for i in range(3)]))
    plot_runs({r"$\frac$": curves}).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size
