"""One line each: training, loading, predicting, evaluating, exporting."""

import json
import subprocess
import sys

import numpy as np
import pytest
from onnx_files import constant_model
from shapes import CONFIG, REPO, SMALL
from tiny_models import pictures

import lazyrun
from lazyrun import load_model, train
from lazyrun.api import override_text
from lazyrun.config.loading import load_config
from lazyrun.engine.run_folder import find_run
from lazyrun.onnx_runner import Metadata, OnnxModel
from pretrain.common.errors import UserError


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """The folder of a run of one iteration, made by :func:`train`."""
    folder = tmp_path_factory.mktemp("api") / "run"
    overrides = dict(text.split("=", 1) for text in SMALL)
    values = {key: json.loads(value) for key, value in overrides.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(shapes))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        made = train(
            REPO / CONFIG,
            overrides=values,
            train__output_dir=folder,
            train__max_iter=1,
            data__train=str(shapes / "shapes/annotations/instances_train.json"),
            data__val=str(shapes / "shapes/annotations/instances_val.json"),
        )
    assert made == folder
    return folder


def test_a_run_is_trained_loaded_and_evaluated(run, shapes):
    config, weights = find_run(run)
    assert (config.name, weights.name) == ("config.yaml", "model_best.pth")
    model = load_model(run, device="cpu")
    annotations = json.loads((shapes / "shapes/annotations/instances_train.json").read_text())
    assert model.class_names == [c["name"] for c in annotations["categories"]]
    image = pictures(1)[0]
    found = model(image)
    assert found.image_size == image.shape[:2]
    metrics = model.evaluate()
    assert "AP" in metrics["bbox"] and (run / "eval").is_dir()


def test_without_best_weights_the_last_are_taken(run, tmp_path):
    for name in ("config.yaml", "model_final.pth"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert find_run(tmp_path)[1].name == "model_final.pth"


def test_mistakes_come_as_exceptions(run, tmp_path):
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        train(run / "config.yaml", train__device="cpu")
    with pytest.raises(UserError, match=r"has no 'max_itr'; did you mean 'train.max_iter'"):
        train(REPO / CONFIG, train__max_itr=1)
    with pytest.raises(UserError, match="holds no run: there is no"):
        load_model(tmp_path)
    (tmp_path / "config.yaml").write_text("x: 1\n")
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        load_model(tmp_path)
    with pytest.raises(UserError, match=r"must end in .onnx"):
        load_model(run, device="cpu").export(tmp_path / "a.pt2")
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = lazyrun.no_such_name


def test_overrides_are_those_of_the_command_line():
    values = {
        "train.output_dir": "output/a (1)",
        "train.epochs": None,
        "train.ddp.fp16_compression": True,
        "optimizer.lr": 1e-5,
        "model.backbone.net.embed_dim": (8, 16, 24),
    }
    cfg = load_config(str(REPO / CONFIG), [override_text(key, value) for key, value in values.items()])
    assert (
        cfg.train.output_dir == "output/a (1)" and cfg.train.epochs is None and cfg.train.ddp.fp16_compression is True
    )
    assert cfg.optimizer.lr == 1e-5 and list(cfg.model.backbone.net.embed_dim) == [8, 16, 24]


def test_exported_files_load_without_torch(tmp_path):
    outputs = {"probabilities": np.array([[0.25, 0.75]], np.float32)}
    steps = [{"step": "pad", "height": 90, "width": 90, "value": 0}]
    file = constant_model(tmp_path / "a.onnx", outputs, Metadata("classification", [], "RGB", steps, [90, 90]))
    assert isinstance(load_model(file, device="cpu"), OnnxModel)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['detectron2'] = None\n"
        f"from lazyrun import load_model; import numpy as np\n"
        f"print(load_model({str(file)!r})(np.zeros((20, 20, 3), np.uint8)).tolist())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == [0.25, 0.75]
