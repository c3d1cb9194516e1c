"""Runs that began before the general machinery moved to lazyrun: they go on, are evaluated and predict as they did.

`tests/old_runs/detector` holds the config.yaml and the checkpoint after two of four iterations of such a run on the
eight generated images of the fixture, and what came of it then: losses of the iterations after a --resume, metrics of
--eval-only, and the first predictions.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from recorded import recorded_with
from scripts import run_tool
from shapes import REPO

import convmae_det  # noqa: F401 (registers what a run's config.yaml may name)
from lazyrun.config.loading import load_config
from lazyrun.config.task import task_of

pytestmark = recorded_with("torch", "pillow", "opencv-python-headless")

OLD = REPO / "tests/old_runs"
CONFIG, WEIGHTS = OLD / "detector/config.yaml", OLD / "detector/model_0000001.pth"
EXPECTED = json.loads((OLD / "detector/expected.json").read_text())


def test_resumes(shapes, tmp_path):
    for file in (WEIGHTS, OLD / "detector/last_checkpoint"):
        shutil.copy(file, tmp_path)
    options = ["--num-gpus", "0", "--config-file", CONFIG, "--resume", f"train.output_dir={tmp_path}"]
    run = run_tool("lazyconfig_train_net", *options, DETECTRON2_DATASETS=str(shapes))
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = {str(line["iteration"]): line["total_loss"] for line in lines if "total_loss" in line}
    assert losses == pytest.approx(EXPECTED["losses"], rel=1e-5)
    weights = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"].values()
    norm = sum(float(w.double().norm()) for w in weights if w.is_floating_point())
    assert norm == pytest.approx(EXPECTED["weight_norm"], rel=1e-5)


def test_evaluates(shapes, tmp_path):
    weights = [f"train.init_checkpoint={WEIGHTS}", f"train.output_dir={tmp_path}"]
    options = ["--num-gpus", "0", "--config-file", CONFIG, "--eval-only", *weights]
    run = run_tool("lazyconfig_train_net", *options, DETECTRON2_DATASETS=str(shapes))
    assert run.returncode == 0, run.stderr
    rows = [line.rpartition("copypaste: ")[2].split(",") for line in run.stdout.splitlines() if "copypaste: " in line]
    values = [[float(v) for v in row] for row in rows if row[0][0].isdigit()]
    expected = [[np.nan if v is None else v for v in EXPECTED["eval"][task]] for task in ("bbox", "segm")]
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_predicts(shapes, tmp_path):
    annotations = shapes / "shapes/annotations/instances_val.json"
    options = ["--config-file", CONFIG, "--weights", WEIGHTS, "--device", "cpu", "--annotations", annotations]
    run = run_tool("predict", *options, "--input", shapes / "shapes/val", "--output", tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert len(found) == EXPECTED["detections"]
    for ours, expected in zip(found, EXPECTED["predictions"], strict=False):
        assert (ours["image_id"], ours["category_id"]) == (expected["image_id"], expected["category_id"])
        assert ours["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert ours["bbox"] == pytest.approx(expected["bbox"], abs=1e-3)


@pytest.mark.parametrize("file", sorted((OLD / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_configs_of_all_families_build(file):
    cfg = load_config(str(file))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    assert instantiate(cfg.optimizer).param_groups
    for split in ("train", "test"):
        assert callable(instantiate(cfg.dataloader[split].mapper))
    assert instantiate(cfg.lr_multiplier)(0.0) >= 0
    assert task_of(cfg).name == ("segmentation" if "upernet" in file.name else "detection")
