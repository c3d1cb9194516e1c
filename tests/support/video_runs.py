"""Runs on videos that take a second: their arguments, and whether two ended alike."""

from pathlib import Path

import pytest
import runs
import torch

from pretrain.common.files import load_checkpoint
from pretrain.training.step import Stepper

__all__ = ["arguments", "assert_same_run", "killed_at", "knn_arguments", "pretraining_arguments"]


def arguments(data, output_dir, **overrides) -> list[str]:
    flags = dict(model="videoconvvit_tiny_patch16", input_size=32, num_frames=4, frame_step=1, lr=1e-3)
    return runs.arguments(data, output_dir, **flags | overrides)


def pretraining_arguments(data, output_dir, **overrides) -> list[str]:
    return arguments(data, output_dir, **dict(model="videoconvmae_convvit_tiny_patch16", mask_ratio=0.5) | overrides)


def knn_arguments(data, output_dir, **overrides) -> list[str]:
    return arguments(data, output_dir, **runs.without_training(**overrides))


def assert_same_run(a: Path, b: Path, step: int) -> None:
    a, b = (load_checkpoint(path / f"checkpoint-{step:08d}.pth") for path in (a, b))
    for part in ("model", "clip_notes", "totals", "best"):
        assert repr(a.get(part)) == repr(b.get(part)), part
    for name, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][name]), name
    for key, moments in a["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, b["optimizer"]["state"][key][name]), (key, name)
    assert torch.equal(a["rng"][0]["torch"], b["rng"][0]["torch"])


def killed_at(step: int, monkeypatch, command, flags: list[str]) -> None:
    """Runs a command that is torn off in the middle of a step."""
    steps = []

    def step_or_die(self, group, original=Stepper.step):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        return original(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", step_or_die)
        with pytest.raises(SystemExit, match="130"):
            command(flags)
