"""Processes started by torchrun or SLURM, and the few things they tell each other."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["World", "join_world", "leave_world"]


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

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value

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
        ValueError: CUDA is asked for and there is none.
    """
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: there is no usable GPU; pass --device cpu.")
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return World(), device
    world = World(int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0)), int(os.environ["WORLD_SIZE"]))
    if device.type == "cuda":
        device = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(device)
    if world.size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return world, device


def leave_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
