"""Runs of fine-tuning, linear probe and nearest neighbours that take a second."""

from pathlib import Path

import preloaded
import pytest
import runs
from runs import ENVIRONMENT, assert_same

from pretrain.common.files import load_checkpoint

__all__ = ["CLASSES", "arguments", "assert_same_run", "fails", "knn_arguments", "two_processes"]

CLASSES = ("bright", "dark", "striped")


def arguments(data, output_dir, **overrides) -> list[str]:
    flags = dict(model="convvit_tiny_patch8_32", in_chans=1, batch_size=4, lr=1e-3)
    return runs.arguments(data, output_dir, **flags | overrides)


def knn_arguments(data, output_dir, **overrides) -> list[str]:
    return arguments(data, output_dir, **runs.without_training(**overrides))


def fails(command, message: str, flags: list[str]) -> None:
    with pytest.raises(SystemExit, match=message) as e:
        command.main(flags)
    assert "\n" not in str(e.value)


def assert_same_run(a: Path, b: Path, step: int) -> None:
    """Asserts that two runs have the same checkpoint of a step; not all of them have an average of their weights."""
    ends = [{"ema": None} | load_checkpoint(path / f"checkpoint-{step:08d}.pth") for path in (a, b)]
    assert_same(*ends, "model", "optimizer", "stepper", "rng", "totals", "epoch", "iteration", "best", "classes", "ema")


def two_processes(module: str, flags: list[str]) -> None:
    preloaded.run_as_two(["-m", module, *flags], ENVIRONMENT)
