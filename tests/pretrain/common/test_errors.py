"""What ends a command in one line."""

import pytest
import torch

from pretrain.common.commands import exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.files import save_atomically


@pytest.mark.parametrize("error", [UserError("too large"), FileNotFoundError("not there")])
def test_mistakes_end_in_one_line(monkeypatch, error):
    with pytest.raises(SystemExit, match=f"^error: {error}$"), exit_on_user_error():
        raise error
    monkeypatch.setenv("SHOW_TRACEBACK", "1")
    with pytest.raises(type(error)), exit_on_user_error():
        raise error


def test_a_full_disk_ends_in_one_line(tmp_path, monkeypatch):
    with (
        open("/dev/full", "wb") as full,
        pytest.raises(SystemExit, match=r"^error: .*a\.pth could not be written: "),
        exit_on_user_error(),
    ):
        monkeypatch.setattr("pretrain.common.files.open", lambda *_: full, raising=False)
        save_atomically({"model": torch.zeros(10**6)}, tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_no_memory_ends_in_one_line(error):
    with pytest.raises(SystemExit, match=r"^error: There is not enough memory; take smaller"), exit_on_user_error():
        raise error


def test_other_runtime_errors_are_bugs():
    with pytest.raises(RuntimeError, match="shapes"), exit_on_user_error():
        raise RuntimeError("shapes cannot be multiplied")
