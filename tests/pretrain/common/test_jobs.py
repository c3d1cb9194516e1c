"""Jobs of a study run once, go on after a stop, and say which log tells what went wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pretrain.common.errors import UserError
from pretrain.common.jobs import Job, run_jobs

WRITE = "import pathlib, sys; p = pathlib.Path(sys.argv[1]) / 'value'; p.write_text(sys.argv[2])"


def job(folder, value: str, code: str = WRITE) -> Job:
    def read(path) -> dict:
        return {"value": (path / "value").read_text()}

    return Job(folder, ["-c", code, folder, value], read, {"arm": value})


def test_results_come_in_order_and_are_kept(tmp_path):
    jobs = [job(tmp_path / name, name) for name in "abc"]
    results = run_jobs(jobs, tmp_path, processes=2)
    assert [(r["value"], r["arm"]) for r in results] == [("a", "a"), ("b", "b"), ("c", "c")]
    assert all(r["cpu_seconds"] >= 0 and r["command"][0] == "python" for r in results)

    stamps = [j.done.stat().st_mtime_ns for j in jobs]
    (tmp_path / "b" / "done.json").unlink()  # as if the study had been killed in the middle of b
    (tmp_path / "b" / "left_over").touch()
    assert run_jobs(jobs, tmp_path, processes=1)[1]["value"] == "b"
    assert not (tmp_path / "b" / "left_over").exists()
    assert [jobs[i].done.stat().st_mtime_ns for i in (0, 2)] == [stamps[0], stamps[2]]


def test_a_failure_names_its_log_and_starts_nothing_more(tmp_path):
    jobs = [job(tmp_path / "bad", "x", "import sys; sys.exit(3)"), job(tmp_path / "next", "y")]
    with pytest.raises(UserError, match=r"exit code 3; see .*/bad/output\.txt"):
        run_jobs(jobs, tmp_path, processes=1)
    assert not (tmp_path / "bad" / "done.json").exists() and not (tmp_path / "next" / "done.json").exists()


def test_ctrl_c_ends_the_running_commands(tmp_path):
    slow = "import os, sys, time; open(sys.argv[1] + '/pid', 'w').write(str(os.getpid())); time.sleep(900)"
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have it ignored
        "from pathlib import Path; from pretrain.common.jobs import Job, run_jobs\n"
        f"folder = Path({str(tmp_path / 'slow')!r})\n"
        f"run_jobs([Job(folder, ['-c', {slow!r}, folder], lambda p: {{}})], folder.parent, 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, start_new_session=True)
    pid = tmp_path / "slow" / "pid"
    deadline = time.monotonic() + 120
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # to the study alone
    process.wait(timeout=30)
    child = int(pid.read_text())
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child}")
    assert not (tmp_path / "slow" / "done.json").exists()


def test_done_is_json(tmp_path):
    one = job(tmp_path / "a", "a")
    run_jobs([one], tmp_path, processes=1)
    assert json.loads(one.done.read_text()) == one.result()
