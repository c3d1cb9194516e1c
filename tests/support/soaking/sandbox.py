"""Commands in a forked process of their own, with limits, so that a soak pays for its imports once."""

import atexit
import faulthandler
import logging
import mmap
import os
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from pretrain.common import files, temporary

__all__ = ["Ended", "Limits", "before_changes", "run"]

SHOW = "SOAK_SHOWS_OUTPUT"
"""Environment variable that lets all output of the commands be seen."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename": 0, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.link": 1, "os.symlink": 1}
"""Audit events of changes to a folder, and which of their arguments names the file."""


@dataclass(frozen=True)
class Limits:
    """What a command may use, and when it is killed.

    Attributes:
        seconds: a command that is not silent is stopped then, and was none the worse.
        silent: seconds without a word after which it hangs; time that others have the cores does not count.
        memory: bytes beyond those of the parent.
        file_size: bytes of a file, as if the disk were full then.
        kill_at: SIGKILL before this change to a file in `folder`, counted from 1.
        kill_in_file: the kernel kills it when a file grows beyond so many bytes.
        kill_after: SIGKILL after so many seconds.
    """

    seconds: float = 90
    silent: float = 30
    memory: int = 6 << 30
    file_size: int | None = None
    kill_at: int | None = None
    kill_in_file: int | None = None
    kill_after: float | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code, or minus the signal's number; None if it hung; 0 if it was stopped while it worked.
        changes: to files in the folder, before it ended.
    """

    code: int | None
    output: str
    seconds: float
    changes: int

    @property
    def fault(self) -> str | None:
        """What is wrong with any end but that of a kill."""
        if self.code is None:
            return "hang"
        if self.code < 0 or "Traceback (most recent call last)" in self.output:
            return "traceback"
        if self.code and "error: " not in self.output:
            return "traceback"  # no sentence either
        return None

    @property
    def sentence(self) -> str:
        """The line that tells most of how it ended."""
        lines = [line for line in self.output.strip().splitlines() if line.strip()]
        errors = [line for line in lines if "rror" in line]
        return f"exit {self.code}: {(errors or lines or ['no output'])[-1][:300]}"


def run(command: Callable[[], object], limits: Limits = Limits(), cwd: Path | None = None) -> Ended:
    """Calls `command` in a forked process, whose output is read through a pipe, and waits for its end."""
    counter = mmap.mmap(-1, 8)
    start = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(command, writing, limits, cwd, counter)
    os.close(writing)
    os.set_blocking(reading, False)
    output = bytearray()
    try:
        code = _wait(child, reading, output, limits, start)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # also the processes that it started
        os.close(reading)
    seconds = time.monotonic() - start
    text = output.decode(errors="replace")
    if os.environ.get(SHOW):
        print(text)
    return Ended(code, text, seconds, struct.unpack("q", counter[:8])[0])


def _wait(child: int, reading: int, output: bytearray, limits: Limits, start: float) -> int | None:
    """The exit code as :class:`Ended` has it; the child is gone afterwards."""
    handle = os.pidfd_open(child)
    stop = start + min(limits.seconds, limits.seconds if limits.kill_after is None else limits.kill_after)
    heard = start - _queued(child)
    try:
        while True:
            silence = time.monotonic() - _queued(child) - heard
            wait = max(0.0, min(limits.silent - silence, stop - time.monotonic()))
            ready = select.select([handle, reading], [], [], wait)[0]
            if _read(reading, output):
                heard = time.monotonic() - _queued(child)
            elif handle in ready:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            silence = time.monotonic() - _queued(child) - heard
            hangs, over = silence >= limits.silent, time.monotonic() >= stop
            if hangs or over:
                os.kill(child, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                _read(reading, output)
                return None if hangs and not over else status if limits.kill_after is not None else 0
    finally:
        os.close(handle)


def _queued(child: int) -> float:
    """Seconds in which a process could have run, but others had the cores: these say nothing about it."""
    try:
        return int(Path(f"/proc/{child}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # it has ended, or the kernel does not tell
        return 0.0


def _read(reading: int, output: bytearray) -> int:
    """Reads what is in the pipe; returns how much it was."""
    before = len(output)
    with suppress(BlockingIOError):
        while chunk := os.read(reading, 1 << 16):
            output += chunk
    return len(output) - before


def _be_the_child(
    command: Callable[[], object], writing: int, limits: Limits, cwd: Path | None, counter: mmap.mmap
) -> None:
    """Never returns. What is wrong before the command begins is the soak's fault: exit code 99."""
    code = 99
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        faulthandler.disable()  # as pytest has it
        _redirect(writing)
        if cwd is not None:
            os.chdir(cwd)
        logging.root.handlers.clear()
        _forget()
        _limit(limits)
        _watch(limits, counter)
        code = _call(command)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


def _forget() -> None:
    """What a process knows of the one that it was forked from, and would not if it had been started."""
    temporary._STARTED = time.time()
    temporary._cleaned.clear()
    files._checked.clear()
    atexit._clear()
    torch.set_num_threads(1)  # its parent's other threads are not here, and would be waited for


def _call(command: Callable[[], object]) -> int:
    """The exit code that the interpreter would give."""
    try:
        command()
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int):
            return e.code or 0
        print(e.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _redirect(writing: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limits.memory, used + limits.memory))
    size = limits.kill_in_file if limits.kill_in_file is not None else limits.file_size
    if size is not None:
        # Python ignores the signal, and gets an error in its place.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if limits.kill_in_file is not None else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _watch(limits: Limits, counter: mmap.mmap) -> None:
    """Counts changes to files below a folder, and kills this process before one of them."""
    if limits.folder is None:
        return
    count = 0

    def at_change() -> None:
        nonlocal count
        count += 1
        counter[:8] = struct.pack("q", count)
        if count == limits.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    before_changes(limits.folder, at_change)


def before_changes(folder: Path, act: Callable[[], None]) -> None:
    """Calls `act` before each change to a file below a folder, by this process or one that it forks."""
    inside = os.path.abspath(folder)

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            if not (isinstance(args[2], int) and args[2] & WRITING):
                return
            path = args[0]
        elif event in CHANGES:
            path = args[CHANGES[event]]
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike) or not os.path.abspath(os.fsdecode(path)).startswith(inside):
            return
        act()

    sys.addaudithook(hook)
