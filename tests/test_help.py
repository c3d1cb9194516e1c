"""Every command answers `--help`, and refuses an option that it does not have, before it imports what takes seconds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from parity import REPO

HEAVY = ("torch", "torchvision", "timm", "detectron2", "matplotlib")
PACKAGES = (REPO, *sorted(path for path in (REPO / "projects").iterdir() if path.is_dir()))
"""Folders that packages lie in."""

PROBE = f"""
import runpy, sys

command = sys.argv[1]
codes = []
for option in ("--help", "--no-such-option"):
    sys.argv = [command, option]
    try:
        if command.endswith(".py"):
            runpy.run_path(command, run_name="__main__")
        else:
            runpy.run_module(command, run_name="__main__", alter_sys=True)
    except SystemExit as e:
        codes.append(e.code)
print(codes, sorted(set({HEAVY}) & set(sys.modules)))
"""


def commands() -> list[str]:
    """Every file that may be run: dotted names of modules of the packages, paths of scripts."""
    files = [path for pattern in ("tools/*.py", "datasets/*.py", "tests/*.py") for path in sorted(REPO.glob(pattern))]
    found = [str(path.relative_to(REPO)) for path in files if is_run(path)]
    for folder in PACKAGES:
        for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
            modules = [path.relative_to(folder) for path in sorted(package.rglob("*.py")) if is_run(path)]
            found += [".".join(path.with_suffix("").parts).removesuffix(".__main__") for path in modules]
    return found


def is_run(path: Path) -> bool:
    return '\nif __name__ == "__main__":' in path.read_text()


def test_the_commands_are_found():
    assert {"pretrain", "pretrain.finetune", "lazyrun.onnx_runner", "tools/predict.py", "tests/soak.py"} <= {
        *commands()
    }


@pytest.mark.parametrize("command", commands())
def test_help_and_refusal_import_nothing_heavy(command):
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "-c", PROBE, command], cwd=REPO, env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout.splitlines()[-1] == "[0, 2] []", run.stderr
    assert run.stdout.startswith("usage: ") and "error: " in run.stderr
    assert not re.search(r"\S {4,}--", run.stdout), "a line of an example lost its backslash"
