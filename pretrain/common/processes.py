"""The processes of a run: which of them tells of a mistake, and which has ended. Needs no PyTorch until they joined."""

import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["is_first_of_the_living", "is_first_to_tell", "lost_process", "note_processes", "this_process"]

HEAD_START = 5.0
"""Seconds that other processes wait for the main one to tell of a mistake that it probably meets as well."""


LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")
"""What gloo and NCCL say if a process at the other end has gone."""

PATIENCE = 2.0
"""Seconds in which a process that closed its connections must have ended."""

_processes: list[tuple[str, int]] = []
"""Host and number of each process, by rank."""


def is_first_to_tell() -> bool:
    """Whether this process is the one to tell its user of a mistake, for all processes that meet it.

    That is the main process if it meets the mistake as well, otherwise the first of those that do. Before they have
    joined, all processes of a machine have read the same arguments, and the first of them tells.
    """
    dist = sys.modules.get("torch.distributed")  # what is not imported has joined no processes
    if dist is None or not (dist.is_available() and dist.is_initialized()):
        return os.environ.get("LOCAL_RANK", "0") == "0"
    store = dist.distributed_c10d._get_default_store()
    deadline = time.monotonic() + (HEAD_START if dist.get_rank() > 0 else 0)
    try:
        while time.monotonic() < deadline and not store.check(["told"]):
            time.sleep(0.1)
        return store.add("told", 1) == 1
    except RuntimeError:  # the store ended with the main process, which has reported the mistake
        return False


def this_process() -> tuple[str, int]:
    """Host and number."""
    return socket.gethostname(), os.getpid()


def note_processes(processes: Sequence[tuple[str, int]]) -> None:
    """Keeps :func:`this_process` of all, by rank, for when one of them is gone."""
    _processes[:] = processes


def lost_process(error: BaseException) -> str | None:
    """A sentence on which process of the run has ended, if that is what an error of gloo or NCCL means; else None."""
    if len(_processes) < 2 or not any(text in str(error) for text in LOST):
        return None
    deadline = time.monotonic() + PATIENCE
    while not (gone := _gone()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not gone:
        which = "Another process of this run, on another machine,"
    else:
        rank = gone[0]
        which = f"Rank {rank} of this run (process {_processes[rank][1]} on {_processes[rank][0]})"
    return (
        f"{which} has ended, so the others cannot go on. The end of its log (log.txt.rankN of a detector, else the "
        "console of that process) tells why; without a word there, it was killed, as when memory is out. Continue with "
        "--resume."
    )


def is_first_of_the_living() -> bool:
    """Whether this process has the lowest rank of those on its machine that have not ended."""
    host, gone = socket.gethostname(), _gone()
    living = [number for rank, (where, number) in enumerate(_processes) if where == host and rank not in gone]
    return not living or living[0] == os.getpid()


def _gone() -> list[int]:
    """Ranks of this machine's processes that have ended."""
    host = socket.gethostname()
    return [rank for rank, (where, number) in enumerate(_processes) if where == host and _has_ended(number)]


def _has_ended(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # one that whoever started it has not looked at yet is still there
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
