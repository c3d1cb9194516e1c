"""Writers chosen by the config; Weights & Biases is a stand-in that notes what it is told."""

import json
import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from lazyrun.config.checks import check_writers
from lazyrun.engine.metric_writers import build_writers
from pretrain.common.errors import UserError


@pytest.fixture
def wandb(monkeypatch):
    calls = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append(("log", step, values)), finish=lambda: calls.append(("finish",))
    )

    def init(**arguments):
        calls.append(("init", arguments))
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return calls


def config(output_dir, *writers: str):
    train = {"output_dir": str(output_dir), "max_iter": 10, "writers": list(writers)}
    return OmegaConf.create({"train": train | {"wandb": {"project": "p", "name": None, "mode": "offline"}}})


def test_every_writer_gets_every_number_once(wandb, tmp_path):
    cfg = config(tmp_path, "json", "wandb", "tensorboard")
    check_writers(cfg.train.writers)
    writers = build_writers(cfg)
    with EventStorage() as storage:
        for iteration in range(3):
            storage.put_scalar("lr", 0.5, smoothing_hint=False)
            if iteration == 1:
                storage.put_scalar("bbox/AP", 40.0, smoothing_hint=False)
            for writer in writers:
                writer.write()
            storage.step()
    for writer in writers:
        writer.close()
    logged = [(step, values) for kind, step, values in (c for c in wandb if c[0] == "log")]
    assert logged == [(0, {"lr": 0.5}), (1, {"lr": 0.5, "bbox/AP": 40.0}), (2, {"lr": 0.5})]
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [(line.pop("iteration"), line) for line in lines] == logged
    assert wandb[-1] == ("finish",) and any(p.name.startswith("events") for p in tmp_path.iterdir())


def test_resumed_run_goes_on_in_the_same_one(wandb, tmp_path):
    for _ in range(2):
        build_writers(config(tmp_path, "wandb"))
    first, second = (c[1] for c in wandb)
    assert first == second and first["id"] and first["resume"] == "allow"
    assert first["name"] == tmp_path.name and first["mode"] == "offline" and first["dir"] == str(tmp_path)


@pytest.mark.parametrize("left", ['{"iteration": 1, "lr": 0.5}\n{"iter', '{"iteration": 1, "lr": 0.5}\n', '{"iter', ""])
def test_half_a_line_of_a_killed_run_is_no_part_of_the_next(tmp_path, left):
    (tmp_path / "metrics.json").write_text(left)
    [writer] = build_writers(config(tmp_path, "json"))
    with EventStorage(2) as storage:
        storage.put_scalar("lr", 0.25, smoothing_hint=False)
        writer.write()
    writer.close()
    whole = [{"iteration": 1, "lr": 0.5}] if "\n" in left else []
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines == [*whole, {"iteration": 2, "lr": 0.25}]


def test_mistakes(monkeypatch):
    with pytest.raises(UserError, match="'csv' is none of console, json, tensorboard, wandb"):
        check_writers(["json", "csv"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb, which is not installed: pip install -e '\.\[wandb\]'"):
        check_writers(["wandb"])
