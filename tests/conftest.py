"""Fixtures of the whole suite."""

import json

import pytest
import torch
from parity import GOLDEN, Golden
from shapes import make_shapes


@pytest.fixture(scope="session")
def golden():
    """`golden(name)` reads one golden file."""
    return Golden


@pytest.fixture(scope="session")
def reference_names() -> dict:
    """Parameter names, shapes and optimizer groups of the published models."""
    return json.loads((GOLDEN / "reference_names.json").read_text())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Folder that holds a small `shapes` data set; not to be changed."""
    return make_shapes(tmp_path_factory.mktemp("datasets"))
