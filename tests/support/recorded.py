"""Tests of numbers that earlier runs gave, to the last digits."""

from importlib.metadata import distributions

import pytest
from parity import REPO

__all__ = ["recorded_with"]


def recorded_with(*packages: str) -> pytest.MarkDecorator:
    """Skips unless these are as in constraints.txt: other versions decode, resize and draw pixels that differ a bit."""
    pinned = (REPO / "constraints.txt").read_text().split()
    installed = {package.name.lower(): package.version.partition("+")[0] for package in distributions()}
    other = [name for name in packages if f"{name}=={installed.get(name)}" not in pinned]
    return pytest.mark.skipif(bool(other), reason=f"recorded with another version of {', '.join(other)}")
