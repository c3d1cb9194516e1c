"""Segmentation by the tools' commands alone: train on folders of label maps, evaluate, predict, look; mistakes."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import call, load_tool, run_tool
from shapes import REPO

from lazyrun.engine.run import run as run_here
from pretrain.common.errors import UserError

CONFIG = str(REPO / "projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py")
NAMES = ["background", "circle", "square", "triangle", "star"]
SMALL = [
    "model.backbone.embed_dim=[8,8,16]",
    "model.backbone.depth=[1,1,1]",
    "model.decode_head.channels=8",
    "model.auxiliary_head.channels=8",
    "dataloader.train.total_batch_size=2",
    "train.max_iter=2",
    "train.log_period=1",
]


def folders(shapes, tmp_path, split="train"):
    root = shapes / "shapes"
    return [f"data.{split}_images={root / split}", f"data.{split}_labels={root / 'labels' / split}"]


@pytest.fixture
def classes(tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    return [f"data.class_names={tmp_path / 'classes.txt'}", "data.ignore_label=255"]


def train(*arguments):
    return run_tool("lazyconfig_train_net", "--num-gpus", 0, "--config-file", CONFIG, *arguments)


def train_in_process(*overrides, resume=False):
    run_here(Namespace(config_file=CONFIG, opts=list(overrides), resume=resume, eval_only=False))


def test_folders_from_training_to_pictures(shapes, tmp_path, classes):
    run, val = tmp_path / "run", folders(shapes, tmp_path, "val")
    done = train(*folders(shapes, tmp_path), *val, *classes, *SMALL, f"train.output_dir={run}")
    assert done.returncode == 0, done.stderr
    stored = torch.load(run / "model_best.pth", weights_only=True)
    assert stored["categories"] == [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    assert stored["metric"] == "sem_seg/mIoU"
    log = (run / "log.txt").read_text()
    assert "8 images with label maps" in log and "triangle" in log  # counted for each class

    config, content = (run / "config.yaml").read_bytes(), sorted(p.name for p in run.iterdir())
    larger = [*folders(shapes, tmp_path), *val, *classes, *SMALL, "data.image_size=96", f"train.output_dir={run}"]
    with pytest.raises(UserError, match="cannot be continued with this config"):
        train_in_process(*larger, resume=True)
    assert (run / "config.yaml").read_bytes() == config and sorted(p.name for p in run.iterdir()) == content

    (tmp_path / "classes.txt").rename(tmp_path / "moved.txt")  # a prediction needs neither data nor names
    predicted = run_tool(
        "predict", "--config-file", run / "config.yaml", "--weights", run / "model_final.pth", "--device", "cpu",
        "--input", shapes / "shapes" / "val", "--output", tmp_path / "out", "--batch-size", 2,
    )  # fmt: skip
    assert predicted.returncode == 0 and "4 images" in predicted.stdout, predicted.stderr
    listed = json.loads((tmp_path / "out/images.json").read_text())
    assert [c["name"] for c in listed["categories"]] == NAMES
    confusion = np.zeros((5, 5))
    for image in listed["images"]:
        ours = np.asarray(Image.open(tmp_path / "out" / image["label_map"]))
        stem = image["file_name"].rsplit("/", 1)[1].replace("jpg", "png")
        truth = np.asarray(Image.open(shapes / "shapes/labels/val" / stem))
        np.add.at(confusion, (truth, ours), 1)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    miou = 100 * np.mean([np.diag(confusion)[i] / union[i] for i in range(5) if confusion[i].any()])
    metrics = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert metrics[-1]["sem_seg/mIoU"] == pytest.approx(miou)  # what is written is what was evaluated

    (tmp_path / "moved.txt").write_text("\n".join([*NAMES[:4], "kite"]))
    other = train(
        "--eval-only", *val, *SMALL, classes[1], f"data.class_names={tmp_path / 'moved.txt'}",
        f"train.init_checkpoint={run / 'model_final.pth'}", f"train.output_dir={run}",
    )  # fmt: skip
    assert other.returncode == 1 and "was trained on 5 classes (background, circle" in other.stderr
    assert not (run / "eval" / "config.yaml").exists()


def test_what_is_for_detectors_alone_says_so(monkeypatch, tmp_path):
    for tool, *arguments in (
        ("benchmark", "detect", "--config-file", CONFIG),
        ("export_model", "--config-file", CONFIG, "--weights", "a.pth", "--output", tmp_path / "a.ts",
         "--image", "setup.py"),
    ):  # fmt: skip
        monkeypatch.chdir(REPO)
        with pytest.raises(SystemExit, match="detectors"):
            call(load_tool(tool), monkeypatch, *arguments)


@pytest.mark.parametrize("name", ["notes.txt", "run"])
def test_a_run_is_not_begun_over_something_else(shapes, tmp_path, classes, name):
    """A user's file, or a run of other classes, stays as it was."""
    output = tmp_path / name
    if name == "run":
        output.mkdir()
        (output / "last_checkpoint").write_text("model_0000001.pth")
        torch.save({"model": {}, "categories": [{"id": 0, "name": "kite"}]}, output / "model_0000001.pth")
        (output / "config.yaml").write_text("mine")
    else:
        output.write_text("mine")
    message = "was trained on 1 classes .* --resume with those" if name == "run" else "notes.txt is the name of a file"
    with pytest.raises(UserError, match=message):
        train_in_process(*folders(shapes, tmp_path), *classes, f"train.output_dir={output}", resume=name == "run")
    assert (output / "config.yaml" if name == "run" else output).read_text() == "mine"


def test_registered_shapes_and_a_look_at_them(shapes, tmp_path):
    seen = run_tool("visualize_data", "--config-file", CONFIG, "--output", tmp_path / "look", "--count", 2,
                    DETECTRON2_DATASETS=str(shapes))  # fmt: skip
    assert seen.returncode == 0 and "2 images, " in seen.stdout and "classes" in seen.stdout, seen.stderr
    assert len(list((tmp_path / "look").glob("*.png"))) == 3


@pytest.mark.parametrize("check", [True, False], ids=["before", "in the middle"])
def test_bad_label_maps_are_told_in_a_sentence(shapes, tmp_path, classes, check):
    labels = tmp_path / "labels"
    labels.mkdir()
    for path in (shapes / "shapes/labels/train").iterdir():
        Image.new("L", (60, 64)).save(labels / path.name)
    data = [f"data.train_images={shapes / 'shapes/train'}", f"data.train_labels={labels}"]
    loader = [f"train.check_data={check}", "dataloader.train.num_workers=1"]
    done = train(*data, *classes, *SMALL, *loader, f"train.output_dir={tmp_path / 'run'}")
    assert done.returncode == 1 and done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "png has 60x64 pixels, but its image" in done.stderr
