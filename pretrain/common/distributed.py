"""Processes started by torchrun or SLURM, and the few things they tell each other."""

import atexit
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from pretrain.common.errors import UserError
from pretrain.common.processes import note_processes, this_process

__all__ = ["World", "in_world"]


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
