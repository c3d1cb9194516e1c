"""The tools that draw, called as from the command line; mistakes end in one sentence."""

import json

import pytest
from scripts import call, load_tool, run_tool
from shapes import CONFIG, REPO, run_training


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """A run of two iterations with an evaluation; it may have detected nothing worth showing."""
    output = tmp_path_factory.mktemp("runs") / "run"
    done = run_training(shapes, output, "train.max_iter=2", "model.roi_heads.box_predictor.test_score_thresh=0.0")
    assert done.returncode == 0, done.stderr
    return output


def test_train_look_report_plot(trained, shapes, tmp_path):
    data = run_tool(
        "visualize_data", "--config-file", CONFIG, "--output", tmp_path / "data", "--count", 3,
        DETECTRON2_DATASETS=str(shapes),
    )  # fmt: skip
    assert data.returncode == 0, data.stderr
    assert len(list((tmp_path / "data").glob("*.png"))) == 4 and "sheet.png: 3 images" in data.stdout
    report = run_tool(
        "visualize_results", "--results", trained / "inference" / "coco_instances_results.json",
        "--annotations", shapes / "shapes" / "annotations" / "instances_val.json",
        "--images", shapes / "shapes" / "val", "--output", tmp_path / "report", "--count", 2,
    )  # fmt: skip
    assert report.returncode == 0, report.stderr
    assert "/run</h1>" in (tmp_path / "report" / "report.html").read_text()
    plot = run_tool("plot_training", trained, "--output", tmp_path / "curves.png", "--smooth", 3)
    assert plot.returncode == 0, plot.stderr
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    metrics = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    assert metrics[0]["max_mem_mb"] > 50


MISTAKES = [
    ("visualize_data", ["--config-file", "none.py", "--output", "{tmp}"], "none.py' does not exist"),
    ("visualize_data", ["--config-file", CONFIG, "--output", "{tmp}", "--count", "0"], "at least one image"),
    ("visualize_data", ["--config-file", CONFIG, "--output", "{tmp}", "data.imagesize=3"], "did you mean"),
    ("visualize_results", ["--results", "none.json", "--images", "{empty}"], "is empty; name the one"),
    ("visualize_results", ["--results", "none.json", "--images", "none"], "Image folder none does not exist"),
    ("visualize_results", ["--results", "none.json", "--images", "{images}"], "none.json does not exist"),
    ("plot_training", ["none"], "none does not exist; name a metrics.json"),
    ("plot_training", ["{empty}", "--output", "curves.xyz"], "must end in .png, .pdf, .svg"),
    ("export_model", ["--config-file", CONFIG, "--weights", "none.pth", "--output", "{tmp}/a.pt2"], "none.pth"),
    ("export_model", ["--config-file", CONFIG, "--weights", "a", "--output", "{tmp}/a.bin"], "must end in .pt2"),
    ("export_model", ["--config-file", CONFIG, "--weights", "a", "--output", "{tmp}/a.ts"], "traced on a picture"),
    ("export_model", ["--config-file", CONFIG, "--weights", "a", "--output", "{empty}/b/a.ts"], "no directory"),
]


@pytest.mark.parametrize(("tool", "arguments", "message"), MISTAKES)
def test_mistakes(shapes, tmp_path, monkeypatch, tool, arguments, message):
    monkeypatch.chdir(shapes.parent)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shapes))
    (tmp_path / "empty").mkdir()
    places = {"tmp": tmp_path, "empty": tmp_path / "empty", "images": shapes / "shapes" / "val"}
    arguments = [str(REPO / a) if a == CONFIG else a.format(**places) for a in arguments]
    if tool == "visualize_results":
        annotations = shapes / "shapes" / "annotations" / "instances_val.json"
        arguments += ["--annotations", str(annotations), "--output", str(tmp_path / "report")]
    with pytest.raises(SystemExit, match="error: ") as caught:
        call(load_tool(tool), monkeypatch, *arguments)
    assert message in str(caught.value)
