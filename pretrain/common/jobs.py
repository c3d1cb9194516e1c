"""Jobs of a study: commands in processes of their own, whose results are kept, so that a stopped study goes on."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pretrain.common.errors import UserError
from pretrain.common.temporary import save_json

__all__ = ["Job", "run_jobs"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One arm of a study.

    Attributes:
        folder: of everything it writes; `done.json` in it holds the result.
        command: of Python, without `python` itself.
        read: the result, from the folder of the finished command.
        facts: what the arm is, kept beside the result.
    """

    folder: Path
    command: Sequence[object]
    read: Callable[[Path], dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> Path:
        return self.folder / "done.json"

    def result(self) -> dict[str, Any]:
        """What a finished job has measured."""
        return json.loads(self.done.read_text())


def run_jobs(jobs: Sequence[Job], root: Path, processes: int) -> list[dict[str, Any]]:
    """Runs those jobs that have no result yet, several at a time, with progress and the time left.

    A job that was stopped begins again; nothing else is lost.

    Args:
        root: folder that commands run in.
        processes: jobs at a time, which share the cores.

    Returns:
        the results of all jobs, in their order.

    Raises:
        UserError: a command failed; its log is named.
    """
    due = [job for job in jobs if not job.done.exists()]
    if due:
        logger.info(f"{len(jobs)} jobs, {len(jobs) - len(due)} of them done before.")
    progress = _Progress(len(due), processes)
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ThreadPoolExecutor(processes) as pool:
        futures = [pool.submit(_run, job, root, threads, progress) for job in due]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            progress.stop()
            raise
    return [job.result() for job in jobs]


class _Progress:
    """Counts finished jobs, and knows the commands that run."""

    def __init__(self, total: int, processes: int):
        self.total, self.processes = total, processes
        self.finished = 0
        self.stopped = False
        self.start = time.monotonic()
        self.running: set[subprocess.Popen] = set()
        self.lock = threading.Lock()

    def finish(self, job: Job, seconds: float) -> None:
        with self.lock:
            self.finished += 1
            left = (time.monotonic() - self.start) / self.finished * (self.total - self.finished)
            eta = timedelta(seconds=round(left))
            logger.info(f"{self.finished}/{self.total} {job.folder.name}: {seconds:.0f} s  ETA {eta}")

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()


def _run(job: Job, root: Path, threads: int, progress: _Progress) -> None:
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    command = [str(word) for word in job.command]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    start, log = time.monotonic(), job.folder / "output.txt"
    with open(log, "w") as output:
        with progress.lock:
            if progress.stopped:
                return
            process = subprocess.Popen(
                [sys.executable, *command], cwd=root, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
            progress.running.add(process)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        progress.running.discard(process)
    if progress.stopped:
        return
    if process.returncode:
        raise UserError(f"A command of the study failed with exit code {process.returncode}; see {log}.")
    result = job.facts | job.read(job.folder)
    cpu = usage.ru_utime + usage.ru_stime
    save_json({**result, "cpu_seconds": round(cpu), "command": ["python", *command]}, job.done)
    progress.finish(job, time.monotonic() - start)
