"""Running the scripts of `tools/`."""

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import preloaded
from shapes import REPO


def load_tool(name: str) -> ModuleType:
    """A script as a module; scripts are no package."""
    spec = importlib.util.spec_from_file_location(name, REPO / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def import_work(path: Path) -> None:
    """Imports all that a command imports, also what it does not need before its arguments are parsed."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in [node.module] if isinstance(node, ast.ImportFrom) and node.module else names:
            importlib.import_module(name)


def call(module: ModuleType, monkeypatch, *arguments: object) -> None:
    """Calls a script's `main` in this process."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *(str(a) for a in arguments)])
    module.main()


def run_tool(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Runs a script in a process of its own."""
    command = [f"tools/{name}.py", *(str(a) for a in arguments)]
    return preloaded.run(command, os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | environment)
