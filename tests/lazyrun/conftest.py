"""Configs of the repository are read once in a session."""

import functools
from pathlib import Path

import pytest
from shapes import REPO

from lazyrun.config import loading


@pytest.fixture(scope="session", autouse=True)
def _configs_are_read_once():
    """Executing a config is most of the time of a test that changes one of its options; every test gets a copy."""
    original = loading.read_config
    read, options = functools.cache(original), functools.cache(loading.default_train_options)

    def read_config(config_file: str):
        if config_file.endswith(".py") and Path(config_file).is_relative_to(REPO / "projects"):
            return read(config_file).copy()
        return original(config_file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "read_config", read_config)
        patch.setattr(loading, "default_train_options", lambda: options().copy())
        yield
