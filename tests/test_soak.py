"""A short slice of the soak, and whether it would notice what it looks for."""

import importlib
import os
import random
import shutil
import signal
import sys
import time

import pytest
import torch
from soaking import checkpoints as damaged
from soaking import nonsense, trainings
from soaking.cases import Case, Tally, Verdict, judge
from soaking.kills import difference, full_disk, kills
from soaking.sandbox import Limits, run

from pretrain.common.files import save_atomically

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="forked processes cannot use CUDA")


NAMED = {name: trainings.TRAININGS[name] for name in ("mixture", "video")}


@pytest.fixture(scope="module")
def lab():
    """Of the trainings those that need no detectron2, and all others only where they are named."""
    importlib.import_module("torch.utils.tensorboard")  # once, and not in every process
    whole = dict(trainings.TRAININGS)
    for name in ("detector", "segmentation", *NAMED):
        del trainings.TRAININGS[name]
    yield trainings.lab
    shutil.rmtree(trainings.lab.root, ignore_errors=True)
    trainings.TRAININGS.update(whole)


def case(tmp_path, kind, number):
    return Case(random.Random(f"0:{kind}:{number}"), tmp_path)


SLICE = [(kills, 0), (full_disk, 0), (damaged.checkpoints, 0), (damaged.checkpoints, 1)]


@pytest.mark.parametrize(("kind", "number"), SLICE, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_slice(lab, tmp_path, kind, number):
    verdict = kind(case(tmp_path, kind.__name__, number))
    assert verdict.fault is None, f"{verdict.shown}: {verdict.details}"


@pytest.mark.parametrize("name", NAMED)
def test_a_kill_of(lab, tmp_path, monkeypatch, name):
    for other in list(trainings.TRAININGS):
        monkeypatch.delitem(trainings.TRAININGS, other)
    monkeypatch.setitem(trainings.TRAININGS, name, NAMED[name])
    verdict = kills(case(tmp_path, "kills", 2))
    assert name in verdict.shown and verdict.fault is None, f"{verdict.shown}: {verdict.details}"


def command_that(how):
    def traceback():
        raise KeyError("a bug")

    return {
        "traceback": traceback,
        "signal": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "no sentence": lambda: sys.exit(1),
        "hang": lambda: time.sleep(60),
        "memory": lambda: bytearray(1 << 34),
        "mistake": lambda: sys.exit("error: no such file"),
        "well": lambda: print("done"),
    }[how]


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        *((how, "traceback") for how in ("traceback", "signal", "no sentence", "memory")),
        ("hang", "hang"),
        ("mistake", None),
        ("well", None),
    ],
)
def test_each_end_is_told_from_the_others(how, fault):
    ended = run(command_that(how), Limits(silent=0.3 if how == "hang" else 30, memory=1 << 30))
    assert judge("a command", ended).fault == fault
    assert judge("a command", ended, "the file was damaged").fault == ("accepted" if how == "well" else fault)


def test_commands_are_killed_where_they_are_told_to(tmp_path):
    def write_three():
        for name in ("a", "b", "c"):
            (tmp_path / name).write_bytes(bytes(1000))

    assert run(write_three, Limits(folder=tmp_path)).changes == 3
    assert run(write_three, Limits(folder=tmp_path, kill_at=2)).code == -signal.SIGKILL
    (tmp_path / "a").unlink()
    assert run(write_three, Limits(kill_in_file=500)).code == -signal.SIGXFSZ
    assert (tmp_path / "a").stat().st_size == 500
    full = run(write_three, Limits(file_size=500))
    assert full.fault == "traceback" and "File too large" in full.output
    assert run(lambda: time.sleep(60), Limits(kill_after=0.1)).code == -signal.SIGKILL


def test_differences_of_two_folders(tmp_path):
    for name in ("whole", "same", "bit", "left"):
        (tmp_path / name).mkdir()
        values = torch.ones(3)
        values[1] += torch.finfo().eps if name == "bit" else 0
        save_atomically({"model": {"w": values}, "args": {"resume": name}}, tmp_path / name / "w.pth")
    (tmp_path / "left" / ".w.tmp.pth").touch()
    found = {name: difference(tmp_path / "whole", tmp_path / name) for name in ("same", "bit", "left", "none")}
    assert found == {
        "same": None,
        "bit": "w.pth differs",
        "left": ".w.tmp.pth is left over",
        "none": "w.pth is missing",
    }


def test_a_failure_of_the_soak_itself_is_no_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "setsid", lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="the soak could not begin"):
        judge("a command", run(lambda: None))


def test_the_table(lab):
    tally = Tally()
    tally.add("kills", 0, 5, Verdict("a command"))
    tally.add("kills", 1, 5, Verdict("a command", "hang", "said nothing"))
    assert tally.table(["kills", "flags"]).splitlines()[2:] == [
        "| kills | 2 | 0 | 0 | 0 | 0 | 1 |",
        "| all | 2 | 0 | 0 | 0 | 0 | 1 |",
    ]
    assert tally.found == ["hang: a command\n    said nothing\n    python tests/soak.py --seed 5 --case kills:1"]


def test_nonsense_of_a_command(lab, tmp_path, monkeypatch):
    command, output = "python -m pretrain", tmp_path / "out"
    argv = trainings.TRAININGS["pretrain"].argv(output, "--max_steps", "1")
    monkeypatch.setattr(nonsense, "_sound_commands", lambda folder: [(command, argv)])
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        verdict = nonsense.flags(case(tmp_path / str(number), "flags", number))
        assert verdict.fault is None, f"{verdict.shown}: {verdict.details}"
