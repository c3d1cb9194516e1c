"""`make setup` fails where one of its steps does."""

import os
import subprocess

import pytest
from parity import REPO

PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
case "$*" in *"-e .["*) echo Requirement already satisfied: torch; exit "$INSTALL_CODE";; esac
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_failed_install_fails_the_setup(tmp_path, code):
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    command = ["make", "setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
    environment = os.environ | {"INSTALL_CODE": str(code)}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is (code == 0), done.stderr
    assert (tmp_path / "venv" / "bin" / ".installed").exists() is (code == 0)
    assert "already satisfied:" not in done.stdout
