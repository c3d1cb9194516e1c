"""A data set of one's own, by commands alone: train, evaluate, predict, draw."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import preloaded
import pytest
import torch
from custom import CATEGORIES, write_custom
from scripts import load_tool
from shapes import environment, run_training

from lazyrun.detection import detection


def tool(name: str, shapes, *arguments: object) -> subprocess.CompletedProcess:
    return preloaded.run([f"tools/{name}.py", *map(str, arguments)], environment(shapes))


def test_custom_data_from_training_to_pictures(shapes, tmp_path):
    run, images = tmp_path / "run", shapes / "shapes" / "val"
    options = write_custom(shapes, tmp_path)
    done = run_training(shapes, run, *options, "train.max_iter=4", "train.checkpointer.period=2")
    assert done.returncode == 0, done.stderr
    for name in ("model_0000001", "model_best", "model_final"):
        stored = torch.load(run / f"{name}.pth", weights_only=True)["categories"]
        assert stored == sorted(CATEGORIES, key=lambda c: c["id"])
    log = (run / "log.txt").read_text()
    assert "coin" in log and "kite" in log  # AP of each class

    evaluated = run_training(
        shapes, run, "--eval-only", *options, f"train.init_checkpoint={run / 'model_final.pth'}",
        "dataloader.test.batch_size=1",  # as the predictor's; another one differs in the last bits
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    expected = json.loads((run / "eval/inference/coco_instances_results.json").read_text())
    assert {r["category_id"] for r in expected} <= {7, 21, 90}
    other = run_training(shapes, run, "--eval-only", f"train.init_checkpoint={run / 'model_final.pth'}")
    assert other.returncode == 1 and "was trained on 3 classes (coin, box, kite)" in other.stderr

    seen = tool("visualize_data", shapes, "--config-file", run / "config.yaml", "--output", tmp_path / "data",
                "--count", 1)  # fmt: skip
    assert seen.returncode == 0 and "1 images" in seen.stdout, seen.stderr

    (tmp_path / "broken.jpg").write_text("no image")
    done = tool(
        "predict", shapes, "--config-file", run / "config.yaml", "--weights", run / "model_final.pth",
        "--input", images, tmp_path / "broken.jpg", "--output", tmp_path / "out", "--save-crops", "--device", "cpu",
        "--score-threshold", 0,
    )  # fmt: skip
    assert done.returncode == 3 and "broken.jpg" in done.stderr
    listed = json.loads((tmp_path / "out/images.json").read_text())
    assert {c["id"]: c["name"] for c in listed["categories"]} == {7: "coin", 21: "box", 90: "kite"}
    ids = {int(image["file_name"][-10:-4]): image["id"] for image in listed["images"]}
    ours = json.loads((tmp_path / "out/predictions.json").read_text())
    scores = {i: [r["score"] for r in ours if r["image_id"] == ids[i]] for i in ids}
    assert scores == {i: [r["score"] for r in expected if r["image_id"] == i] for i in ids}
    crops = list((tmp_path / "out/crops").rglob("*.png"))
    assert crops and all(any(name in c.name for name in ("coin", "box", "kite")) for c in crops)

    drawn = tool(
        "visualize_results", shapes, "--results", run / "eval/inference/coco_instances_results.json",
        "--annotations", tmp_path / "val.json", "--images", images, "--output", tmp_path / "pictures",
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert len(list((tmp_path / "pictures").glob("worst_*.png"))) == len(ids)
    assert all(name in (tmp_path / "pictures/report.html").read_text() for name in ("coin", "box", "kite"))


def test_boxes_alone_without_validation_set(shapes, tmp_path):
    options = write_custom(shapes, tmp_path, masks=False)[:2]
    done = run_training(shapes, tmp_path / "run", *options, "train.max_iter=2", "train.eval_period=1")
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "has no segmentation: boxes alone are trained" in log and "nothing will be evaluated" in log
    weights = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert len(weights["categories"]) == 3 and not any("mask_head" in name for name in weights["model"])
    nothing = run_training(shapes, tmp_path / "run", "--eval-only", *options)
    assert nothing.returncode == 1 and "--eval-only has nothing to evaluate" in nothing.stderr


def test_a_refused_command_keeps_earlier_results(tmp_path, monkeypatch):
    predict = load_tool("predict")
    predictor = SimpleNamespace(categories=[], batch_size=1)
    monkeypatch.setattr("lazyrun.config.loading.load_config", lambda *args: None)
    monkeypatch.setattr(
        "lazyrun.config.task.task_of", lambda cfg: replace(detection(), predictor=lambda *args, **kwargs: predictor)
    )
    (tmp_path / "clip.mp4").write_text("no video")
    (tmp_path / "predictions.json").write_text("[1]")
    arguments = ["--config-file", "c.py", "--weights", "w.pth", "--input", tmp_path / "clip.mp4", "--output", tmp_path]
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
    with pytest.raises(SystemExit, match="cannot be read as a video"):
        predict.main()
    assert (tmp_path / "predictions.json").read_text() == "[1]" and not (tmp_path / "images.json").exists()


def test_mistakes_are_told_in_a_line(shapes, tmp_path):
    done = tool("predict", shapes, "--config-file", "no.py", "--weights", "no.pth", "--input", "*.gif",
                "--output", tmp_path / "out")  # fmt: skip
    assert done.returncode == 1 and done.stderr.strip().endswith("error: Pattern *.gif matches no file.")
    assert "Traceback" not in done.stderr


def test_slices_are_changes_of_the_config(monkeypatch, capsys):
    predict = load_tool("predict")

    def parse(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict.py", "run", "a.jpg", *arguments])
        return predict.parse_args()

    args = parse("test.tta.enabled=true", "--slice", "640", "--overlap", "0.3", "--no-slice-whole")
    changes = ["test.slice=640", "test.slice_overlap=0.3", "test.slice_whole=False"]
    assert args.opts == ["test.tta.enabled=true", *changes] and args.input == ["a.jpg"]
    assert predict.what_counts(args)["overrides"] == args.opts  # so that --resume goes on with the same slices alone
    assert parse().opts == []
    with pytest.raises(SystemExit, match="2"):
        parse("--overlap", "0.3")
    assert "are of use with --slice PIXELS" in capsys.readouterr().err
