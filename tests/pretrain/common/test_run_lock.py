"""A folder has one run at a time, and none of a dead process."""

import os
import signal
import time

import pytest
from soaking.sandbox import Limits, run

from pretrain.common.commands import exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.run_lock import run_lock


def lock(folder):
    with exit_on_user_error(), run_lock(folder):
        print("locked")


def test_another_process_is_named_and_nothing_is_left(tmp_path):
    with run_lock(tmp_path / "a" / "b"):
        ended = run(lambda: lock(tmp_path / "a" / "b"))
        assert ended.code == 1 and f"is in use by process {os.getpid()} on " in ended.output
        assert run(lambda: lock(tmp_path / "other")).code == 0
    assert run(lambda: lock(tmp_path / "a" / "b")).output == "locked\n"
    assert not list((tmp_path / "a" / "b").iterdir())


def test_a_killed_process_leaves_no_lock(tmp_path):
    def hold():
        with run_lock(tmp_path):
            if os.fork() == 0:  # as a data loader's worker, which may live on for a while
                time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)

    assert run(hold, Limits()).code == -signal.SIGKILL
    assert (tmp_path / "run.lock").exists()
    with run_lock(tmp_path):
        pass
    assert not (tmp_path / "run.lock").exists()


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run.lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(OSError, match=r"run\.lock"), run_lock(tmp_path):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_it_is_given_back_after_a_mistake(tmp_path):
    with pytest.raises(UserError), run_lock(tmp_path):
        raise UserError("no data")
    assert run(lambda: lock(tmp_path)).code == 0
