"""One prediction job in several processes: torchrun starts them, each takes its share of the images."""

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from lazyrun.inference.journal import Journal

__all__ = ["Shares", "local_device"]

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long processes that are done wait for the others; torchrun ends all of them if one fails."""


def local_device() -> str | None:
    """The GPU of this process among those of its machine under torchrun; None without torchrun or without a GPU."""
    if "LOCAL_RANK" not in os.environ or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"


class Shares:
    """The processes of a job; without torchrun there is one.

    Attributes:
        rank, count: number of this process, and how many there are.
        is_first: whether this process writes what all have found.
    """

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.is_first = self.rank == 0
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=PATIENCE)

    def open_journal(self, folder: Path, about: dict[str, Any], *, resume: bool) -> Journal:
        """The journal of this process; the first process removes earlier ones before the others begin theirs."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.is_first:
            journal = Journal(folder, about, rank=0, resume=resume)
        if self.count > 1:
            distributed.barrier()
        return journal if self.is_first else Journal(folder, about, rank=self.rank, resume=resume)

    def own(self, images: Sequence[T]) -> Sequence[T]:
        """Every n-th image, so that long and short folders are shared alike."""
        return images[self.rank :: self.count]

    def collect(self, unreadable: list[Path]) -> list[Path]:
        """Waits for all processes; what none of them could read."""
        if self.count == 1:
            return unreadable
        everything: list[Any] = [None] * self.count
        distributed.all_gather_object(everything, unreadable)
        return [path for part in everything for path in part]
