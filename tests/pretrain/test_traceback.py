"""What each command ends with: a user's mistake in one line, with `--traceback` in full; a bug always in full."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pretrain import __main__ as pretraining
from pretrain import finetune, knn, linprobe, submit, visualize
from pretrain.common.errors import UserError

RUN = ["--data_path", "nowhere", "--output_dir", "out", "--device", "cpu"]
MISTAKES = {
    pretraining: ["--model", "convmae_convvit_tiny_patch8_32", *RUN],
    finetune: ["--model", "convvit_tiny_patch8_32", *RUN],
    linprobe: ["--model", "convvit_tiny_patch8_32", *RUN],
    knn: ["--model", "convvit_tiny_patch8_32", *RUN],
    visualize: ["--checkpoint", "nowhere.pth", "--images", "nowhere", "--output", "a.png"],
    submit: ["--nodes", "0", "--", "--model", "any", *RUN],
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace())
    monkeypatch.setenv("SHOW_TRACEBACK", "")
    yield
    os.environ.pop("SHOW_TRACEBACK", None)


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_line(command):
    with pytest.raises(SystemExit) as exit:
        command.main(MISTAKES[command])
    message = exit.value.code
    assert message.startswith("error: ") and "\n" not in message and not os.path.exists("out")


@pytest.mark.parametrize("command", MISTAKES)
def test_traceback_shows_where_it_was_noticed(command):
    with pytest.raises((UserError, FileNotFoundError)):
        command.main(["--traceback", *MISTAKES[command]])


@pytest.mark.parametrize("command", [finetune, linprobe, knn])
def test_a_bug_keeps_its_traceback(command, monkeypatch, tmp_path):
    """NumPy's errors are often ValueErrors, as a user's mistakes are."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / split / "a" / "0.png").touch()

    def broken(*_):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(np, "flatnonzero", broken)
    flags = MISTAKES[command][:2] + ["--data_path", str(tmp_path), "--output_dir", "out", "--device", "cpu"]
    with pytest.raises(ValueError, match="could not be broadcast") as e:
        command.main([*flags, "--label_fraction", "0.5"])
    assert not isinstance(e.value, UserError)


def test_a_bug_in_pretraining_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise ValueError("setting an array element with a sequence")

    monkeypatch.setattr("pretrain.models.encoder.sincos_pos_embed", broken)
    with pytest.raises(ValueError, match="array element"):
        pretraining.main(MISTAKES[pretraining])
