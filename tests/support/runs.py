"""Runs of the package's commands in tests: what they are started with, and what they leave."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from parity import REPO

__all__ = ["ENVIRONMENT", "arguments", "assert_same", "log", "one_thread", "result", "without_training"]

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
"""Of processes of their own."""


@contextmanager
def one_thread() -> Iterator[None]:
    """As in processes of their own: sums have the same order, and tiny models run no slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _command_line(flags: Mapping[str, Any]) -> list[str]:
    """Words of a command; the flag alone for "True", and nothing for None."""
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value)) if value is not None]
    return [word for word in words if word != "True"]


def arguments(data, output_dir, **flags) -> list[str]:
    """Of a training that takes a second on a CPU, whatever it trains; `flags` name the rest, or something else."""
    common = dict(data_path=data, output_dir=output_dir, batch_size=2, epochs=2, warmup_epochs=1)
    return _command_line(common | dict(num_workers=0, device="cpu", log_steps=1) | flags)


def without_training(**flags) -> dict[str, Any]:
    """What changes in a training's arguments for nearest neighbours."""
    return dict.fromkeys(("epochs", "warmup_epochs", "lr", "log_steps")) | dict(k=3) | flags


def result(output_dir: Path, name: str) -> dict:
    return json.loads((output_dir / f"{name}.json").read_text())


def log(output_dir: Path) -> list[dict]:
    return [json.loads(line) for line in open(output_dir / "log.jsonl")]


def _leaves(tree: Any) -> list:
    """What dictionaries, by their keys, lists and tuples hold in the end."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in _leaves(tree[key])]
    return [leaf for item in tree for leaf in _leaves(item)] if isinstance(tree, list | tuple) else [tree]


def assert_same(a: Mapping[str, Any], b: Mapping[str, Any], *parts: str) -> None:
    """Asserts that parts of two checkpoints are the same to the bit."""
    for part in parts:
        for x, y in zip(_leaves([a[part]]), _leaves([b[part]]), strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, part
