"""Pretraining runs that take a second: their arguments, and what they wrote."""

import json
from pathlib import Path

import runs
from runs import assert_same

from pretrain.common.files import load_checkpoint

__all__ = ["arguments", "assert_same_state", "checkpoint", "losses"]


def arguments(images, output_dir, **overrides) -> list[str]:
    flags = dict(model="convmae_convvit_tiny_patch16", input_size=32, blr=1e-2, log_steps=2)
    return runs.arguments(images, output_dir, **flags | overrides)


def checkpoint(output_dir: Path, step: int) -> dict:
    return load_checkpoint(output_dir / f"checkpoint-{step:08d}.pth")


def assert_same_state(a: dict, b: dict) -> None:
    assert_same(a, b, "model", "optimizer", "stepper", "rng", "totals", "epoch", "iteration")


def losses(output_dir: Path) -> list[tuple[float, float]]:
    return [(r["train_loss"], r["val_loss"]) for r in map(json.loads, open(output_dir / "log.jsonl"))]
