"""Of several processes that meet a mistake, one tells of it."""

import subprocess
import sys
import time
from datetime import timedelta

import pytest
from torch import distributed
from torch.distributed import TCPStore

from pretrain.common import processes as ours
from pretrain.common.commands import exit_on_user_error
from pretrain.common.errors import UserError


@pytest.fixture
def meets_mistake(monkeypatch):
    """`meets_mistake(rank)` is what the process of that rank exits with, of a group whose store is a real one."""
    main = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))
    stores = {0: main, 1: TCPStore("127.0.0.1", main.port, timeout=timedelta(seconds=5))}
    del main
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(ours, "HEAD_START", 0.2)

    def meet(rank: int, main_is_gone: bool = False) -> str | int:
        if main_is_gone:
            del stores[0]
        monkeypatch.setattr(distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(distributed.distributed_c10d, "_get_default_store", lambda: stores[rank])
        with pytest.raises(SystemExit) as exit, exit_on_user_error():
            raise UserError(f"{rank} cannot go on")
        return exit.value.code

    return meet


def test_the_main_process_tells_of_what_all_meet(meets_mistake):
    assert [meets_mistake(0), meets_mistake(1)] == ["error: 0 cannot go on", 1]


def test_another_process_tells_of_what_the_main_one_does_not_meet(meets_mistake):
    start = time.monotonic()
    assert meets_mistake(1) == "error: 1 cannot go on"
    assert time.monotonic() - start > 0.1  # the main process would have come first
    assert meets_mistake(1) == 1


def test_the_main_process_has_ended(meets_mistake):
    assert meets_mistake(1, main_is_gone=True) == 1


def test_processes_that_have_not_joined(monkeypatch):
    for environment, first in (({}, True), ({"LOCAL_RANK": "0"}, True), ({"LOCAL_RANK": "1"}, False)):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert ours.is_first_to_tell() is first


@pytest.fixture
def two_processes(monkeypatch):
    """This one, of rank 0, and one of rank 1 that has ended, though nobody has waited for it."""
    monkeypatch.setattr(ours, "_processes", [])
    other = subprocess.Popen([sys.executable, "-c", ""])
    ours.note_processes([ours.this_process(), (ours.this_process()[0], other.pid)])
    yield other.pid
    other.wait()


CLOSED = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234"


def test_a_process_that_has_ended_is_named(two_processes):
    with pytest.raises(SystemExit) as exit, exit_on_user_error():
        raise RuntimeError(CLOSED)
    assert exit.value.code.startswith(f"error: Rank 1 of this run (process {two_processes} on ")
    assert "log.txt.rankN" in exit.value.code and ours.is_first_of_the_living()
    with pytest.raises(RuntimeError, match="shapes"), exit_on_user_error():
        raise RuntimeError("shapes do not fit")


def test_a_process_elsewhere_or_of_one_alone(monkeypatch, two_processes):
    monkeypatch.setattr(ours, "PATIENCE", 0.1)
    ours.note_processes([ours.this_process(), ("another-host", 1)])
    assert ours.lost_process(RuntimeError(CLOSED)).startswith("Another process of this run, on another machine,")
    ours.note_processes([ours.this_process()])
    assert ours.lost_process(RuntimeError(CLOSED)) is None
