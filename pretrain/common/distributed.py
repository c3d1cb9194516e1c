"""Processes started by torchrun or SLURM, and the few things they tell each other."""

import atexit
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pretrain.common.errors import UserError

__all__ = [
    "World",
    "in_world",
    "is_first_of_the_living",
    "is_first_to_tell",
    "lost_process",
    "note_processes",
    "this_process",
]

HEAD_START = 5.0
"""Seconds that other processes wait for the main one to tell of a mistake that it probably meets as well."""


LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")
"""What gloo and NCCL say if a process at the other end has gone."""

PATIENCE = 2.0
"""Seconds in which a process that closed its connections must have ended."""

_processes: list[tuple[str, int]] = []
"""Host and number of each process, by rank."""


@dataclass(frozen=True)
class World:
    """This process's place among all of them; a single process is a world of size 1."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def any(self, flag: torch.Tensor) -> bool:
        """Whether the 0-dim boolean flag is set in any process."""
        if self.size == 1:
            return bool(flag)
        flag = flag.to(torch.int32)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        return self.sum(value) / self.size

    def interleave(self, rows: torch.Tensor, total: int) -> torch.Tensor:
        """Rows of all processes in their order, where process r has those of `range(r, total, size)`.

        Args:
            rows: `(N_r, ...)`, on the device that the processes talk through.

        Returns:
            `(total, ...)`, the same in every process.
        """
        if self.size == 1:
            return rows
        most = -(-total // self.size)
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        everyone = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(everyone, padded)
        return torch.stack(everyone, dim=1).flatten(0, 1)[:total]

    def gather(self, value: Any) -> list:
        """One picklable value of each process, in order of rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def join_world(device: str) -> tuple[World, torch.device]:
    """Joins the processes that torchrun or SLURM started, by the environment variables both set.

    Raises:
        UserError: there is no such device, or CUDA is asked for and there is none.
    """
    try:
        chosen = torch.device(device)
    except RuntimeError as e:
        raise UserError(f"--device {device} is not a device; pass cuda or cpu.") from e
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: there is no usable GPU; pass --device cpu.")
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return World(), chosen
    world = World(int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0)), int(os.environ["WORLD_SIZE"]))
    if chosen.type == "cuda":
        chosen = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(chosen)
    if world.size > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return world, chosen


def in_world(device: str, work: Callable[[World, torch.device], object]) -> None:
    """Calls `work(world, device)` in this process, one of those torchrun started or the only one.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    world, torch_device = join_world(device)
    if not world.is_main:
        logging.getLogger("pretrain").setLevel(logging.ERROR)
    note_processes(world.gather(this_process()))
    atexit.register(leave_world)  # after a mistake the processes must still agree on which of them reports it
    work(world, torch_device)
    leave_world()


def leave_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first_to_tell() -> bool:
    """Whether this process is the one to tell its user of a mistake, for all processes that meet it.

    That is the main process if it meets the mistake as well, otherwise the first of those that do. Before they have
    joined, all processes of a machine have read the same arguments, and the first of them tells.
    """
    if not (dist.is_available() and dist.is_initialized()):
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
