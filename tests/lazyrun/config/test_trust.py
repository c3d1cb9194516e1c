"""A run's config.yaml reads what a run writes, and cannot run a stranger's program."""

import functools

import pytest
import torch
import yaml
from detectron2.config import LazyCall, LazyConfig
from detectron2.evaluation import DatasetEvaluators
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from scripts import call, load_tool
from shapes import CONFIG, REPO

import convmae_det  # noqa: F401 (names the packages of this project)
from lazyrun.config.loading import load_config, read_config
from lazyrun.config.trust import read_yaml
from lazyrun.engine.evaluate import evaluate
from pretrain.common.errors import UserError


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    LazyConfig.save(read_config(str(REPO / CONFIG)), str(path))
    return path


def test_what_a_run_writes_is_read(tmp_path, config):
    layer = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    values = {"a": (1, (2, "b")), "layer": layer, "same": layer, "shape": ShapeSpec(channels=3), "name": torch.nn.ReLU}
    path = tmp_path / "values.yaml"
    path.write_text(yaml.dump(values))
    read = read_yaml(path)
    assert read["layer"].func is torch.nn.LayerNorm and read["layer"].keywords == {"eps": 1e-6}
    assert read["layer"] is read["same"]
    assert {name: read[name] for name in ("a", "shape", "name")} == {
        name: values[name] for name in ("a", "shape", "name")
    }
    LazyConfig.save(load_config(str(config)), str(tmp_path / "again.yaml"))
    LazyConfig.save(load_config(str(REPO / CONFIG)), str(tmp_path / "once.yaml"))
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "once.yaml").read_text()


def test_old_runs_are_read():
    for path in [*(REPO / "tests/old_runs/configs").glob("*.yaml"), REPO / "tests/old_runs/detector/config.yaml"]:
        assert "model" in read_yaml(path)


@pytest.mark.parametrize(
    "node",
    [
        "{_target_: os.system, command: touch MARKER}",
        "{_target_: torch.nn.modules.module.warnings.warn, message: a}",
        "{_target_: torch.load, f: a.pth}",
        "{_target_: pretrain.common.jobs.run_jobs, jobs: []}",
        "{_target_: torch.hub.load, repo_or_dir: a/b, model: c}",
        "{_target_: timm.models.load_checkpoint, model: a}",
        "{_target_: timm.create_model, model_name: a}",
        "{_target_: lazyrun.config.loading.read_config, config_file: a.py}",
        "{_target_: detectron2.config.LazyConfig.load, filename: a.py}",
        "{_target_: detectron2.data.build.logging.config.fileConfig, fname: a}",
        "{_target_: '${other}'}",
        "{_target_: {_target_: os.system}}",
        "{_target_: nn.functional}",
        "{a: [1, {b: !!python/tuple [{_target_: subprocess.run, args: touch MARKER}]}]}",
        "'${oc.create:{_target_: os.system}}'",
        "'${oc.decode:\"{_target_: os.system}\"}'",
        "'${oc.env:HOME}'",
        "!!python/object/apply:os.system ['touch MARKER']",
        "!!python/object/new:os.system ['touch MARKER']",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/object:argparse.Namespace {a: 1}",
        "!!python/object/apply:functools.partial {args: [], state: !!python/tuple [1, !!python/tuple [], {}, null]}",
        "!!python/object/apply:functools.partial {args: [], state: !!python/tuple [!!python/name:os.system '', "
        "!!python/tuple [], {}, null]}",
    ],
)
def test_nothing_else_is_named(config, tmp_path, node):
    config.write_text(f"{config.read_text()}other: {node.replace('MARKER', str(tmp_path / 'marker'))}\n")
    with pytest.raises(UserError, match=r"config\.yaml (is not read|cannot be loaded): ") as caught:
        load_config(str(config))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("trusted", [[], ["--trust-config"]])
def test_only_trusted_files_name_anything(config, tmp_path, monkeypatch, trusted):
    marker = tmp_path / "marker"
    config.write_text(f"{config.read_text()}other: !!python/object/apply:os.system ['touch {marker}']\n")
    monkeypatch.setenv("LAZYRUN_TRUST_CONFIG", "")  # which the option sets, and which is then put back
    tool = load_tool("analyze_model")
    arguments = ("--config-file", config, *trusted, "--size", "64")
    if trusted:
        call(tool, monkeypatch, *arguments)
    else:
        with pytest.raises(SystemExit, match=r"error: .*config\.yaml cannot be loaded"):
            call(tool, monkeypatch, *arguments)
    assert marker.exists() == bool(trusted)


def test_a_trusted_target(config, monkeypatch):
    config.write_text(f"{config.read_text()}other: {{_target_: os.getcwd}}\n")
    with pytest.raises(UserError, match=r"it names os\.getcwd, .* add --trust-config\.$"):
        read_config(str(config))
    monkeypatch.setenv("LAZYRUN_TRUST_CONFIG", "1")
    assert read_config(str(config)).other._target_ == "os.getcwd"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer._target_=os.system",
            r"^optimizer\._target_=os\.system may not be called: .* add --trust-config\.$",
        ),
        ("+other={a:{_target_:os.system}}", r"^other with _target_=os\.system may not be called"),
        ("train.seed={_target_:os.system}", r"^train\.seed=.* must be a number"),
        ("train.init_checkpoint=${other}", r"refers to what is not there"),
        ("model.backbone._target_=torch.nn.functional", r"_target_=torch\.nn\.functional may not be called"),
        ("model._target_=torch.nn.Nothing", r"^model\._target_=torch\.nn\.Nothing must be the name of a class or"),
        ("model._target_=5", r"^model\._target_=5 must be the name of a class or function"),
        ("model._target_=null", r"^model\._target_=None must be the name"),
        ("model._target_=[a]", r"^model\._target_=\['a'\] must be the name"),
        ("optimizer._target_='${train.seed}'", r"^optimizer\._target_=0 must be the name"),
        ("dataloader.evaluator._target_=torch.nn.ReLU", r"torch\.nn\.ReLU does not take dataset_name"),
    ],
)
def test_overrides_name_no_more_than_files(config, override, message):
    with pytest.raises(UserError, match=message):
        load_config(str(config), [override])


def test_a_trusted_override(config, monkeypatch):
    monkeypatch.setenv("LAZYRUN_TRUST_CONFIG", "1")
    cfg = load_config(str(config), ["+other._target_=os.getcwd"])
    assert OmegaConf.select(cfg, "other._target_") == "os.getcwd"
    with pytest.raises(
        UserError, match=r"^model\._target_=foo\.bar must be the name of a class or function that can be"
    ):
        load_config(str(config), ["model._target_=foo.bar"])
    assert load_config(str(config), ["optimizer._target_=torch.optim.Adam"]).optimizer._target_ == "torch.optim.Adam"


@pytest.mark.parametrize("key", ["evaluator", "test.mapper", "test.dataset"])
def test_what_an_evaluation_cannot_make(config, key):
    cfg = load_config(str(config), [f"+dataloader.{key}.nothing=1"])
    if "test" in key:
        cfg.dataloader.evaluator = LazyCall(DatasetEvaluators)(evaluators=[])
    with pytest.raises(UserError, match=r"^dataloader\.(evaluator|test) cannot be made \(TypeError: .*'nothing'\)"):
        evaluate(cfg, torch.nn.Identity())
