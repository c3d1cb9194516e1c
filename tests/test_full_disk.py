"""Trainings on a small file system that is full: a sentence, whole files, and the same end once there is room."""

import os
import shutil
import subprocess

import pytest
import torch
from soaking import trainings
from soaking.kills import difference

from pretrain.common.files import load_checkpoint

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="forked processes cannot use CUDA")


@pytest.fixture
def disk(tmp_path):
    """A file system of 256 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk, free):
    """Leaves so many bytes free."""
    with open(disk / "filler", "wb") as f:
        os.posix_fallocate(f.fileno(), 0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - free)


@pytest.fixture
def lab(monkeypatch):
    monkeypatch.setattr(trainings, "lab", trainings.Lab())
    monkeypatch.setenv("DETECTRON2_DATASETS", str(trainings.lab.root))
    yield trainings.lab
    shutil.rmtree(trainings.lab.root)


@pytest.mark.parametrize(("name", "checkpoints"), [("pretrain", "checkpoint-*.pth"), ("detector", "model_0*.pth")])
def test_a_full_disk(lab, disk, tmp_path, name, checkpoints):
    training, whole, run = trainings.TRAININGS[name], tmp_path / "whole", disk / "run"
    assert not training.is_lazy or lab.shapes.is_dir()
    done = training.run(whole)
    assert done.code == 0, done.output
    sizes = sorted(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    for free in (8192, sum(sizes) // 2 + sizes[-1] // 2):  # before the first checkpoint, and before a later one
        fill(disk, free)
        full = training.run(run, resume=run.exists())
        assert full.code == 1 and full.fault is None, full.output
        assert full.output.count("error: ") == 1 and f"{run}/" in full.sentence, full.sentence
        assert "No space left on device" in full.sentence
        left = list(run.glob(checkpoints))
        assert bool(left) == (free > 8192) and all(load_checkpoint(path) for path in left)
        assert not [path for path in run.rglob(".*") if path.is_file()]
        (disk / "filler").unlink()
    resumed = training.run(run, resume=True)
    assert resumed.code == 0, resumed.output
    assert difference(whole, run) is None
