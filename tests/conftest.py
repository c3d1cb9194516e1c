"""Fixtures of the whole suite."""

import gc
import json
import os

import pytest
import torch
from file_server import file_server
from parity import GOLDEN, Golden
from shapes import make_shapes

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: one thread for each, and for what they start
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


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


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of this machine, and an empty cache for what is fetched from it."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    with file_server() as server:
        yield server


@pytest.fixture
def address_of(server):
    """`address_of(file)` is where a file can be fetched."""
    return lambda path: server.serve(f"/{path.name}", path)


@pytest.fixture(scope="session", autouse=True)
def _own_memory(tmp_path_factory):
    """What is remembered of images and tar files goes to folders of the tests, also that of programs they start."""
    for name in ("LAZYRUN_CACHE", "PRETRAIN_CACHE"):
        os.environ[name] = str(tmp_path_factory.mktemp("memory"))


def pytest_collection_finish():
    """What is imported by now stays: the garbage collector need not go through it in every test and forked process."""
    gc.collect()
    gc.freeze()
