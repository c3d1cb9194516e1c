"""Which image comes when: an order that is a function of (seed, epoch), shared among processes, and its loaders."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, default_collate

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.data.datasets import EpochDataset
from pretrain.data.reading_order import shuffled, shuffled_by_shards

__all__ = ["ExactSampler", "StatelessSampler", "eval_loader", "train_loader"]


class StatelessSampler(Sampler):
    """This process's `(epoch, index)` pairs of one epoch, from `start` on.

    The order is a shuffle seeded by (seed, epoch), dealt out image by image to all processes, so that the images of an
    optimizer step are the same however many processes share it.

    Args:
        length: number of images.
        shards, window: those of :func:`pretrain.data.reading_order.shuffled_by_shards`, for a shuffle that reads a few
            tar files at a time; a window of 0 is that of all images.
    """

    def __init__(
        self,
        length: int,
        world: World,
        seed: int,
        shuffle: bool = True,
        shards: np.ndarray | None = None,
        window: int = 0,
    ):
        self.length, self.world, self.seed, self.shuffle = length, world, seed, shuffle
        self.shards, self.window = shards, window
        self.epoch = self.start = 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Goes to an epoch, leaving out its first `start` images of this process."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.length // self.world.size - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        count = self.length // self.world.size
        mine = self._order()[self.world.rank :: self.world.size][:count]
        return iter([(self.epoch, int(i)) for i in itertools.islice(mine, self.start, None)])

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.length)
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.window and self.shards is not None:
            return shuffled_by_shards(self.shards, self.window, generator)
        return shuffled(self.length, generator)


def collate(samples: list[Any]) -> Any:
    """A batch of samples, of whose pixels each image stays as the decoder made it: channel beside channel.

    To put the channels apart would take workers ten times as long, and normalisation on the device does it anyway.

    Args:
        samples: named tuples whose `image` is pixels `(C, H, W)`, uint8, or something else, which is stacked as it is.
    """
    if samples[0].image.dtype != torch.uint8:
        return default_collate(samples)
    batch = default_collate([sample._replace(image=sample.image.permute(1, 2, 0)) for sample in samples])
    return batch._replace(image=batch.image.permute(0, 3, 1, 2))


def train_loader(
    dataset: EpochDataset,
    batch_size: int,
    num_workers: int,
    world: World,
    pin_memory: bool,
    shuffle: bool = True,
    shard_window: int = 0,
) -> DataLoader:
    """Whole batches of this process; `loader.sampler.set_position` chooses the epoch and where in it to begin.

    Args:
        shard_window: tar files that are read at a time, or 0 for all.

    Raises:
        UserError: the data set does not fill one batch of every process, or `shard_window` is given without tar files.
    """
    if shard_window and dataset.shards is None:
        raise UserError(
            f"--shard_window {shard_window} is an order of reading tar files, and these {dataset.noun}s are in none; "
            "leave it out."
        )
    if len(dataset) < batch_size * world.size:
        raise UserError(
            f"{len(dataset)} {dataset.noun}s give no optimizer step: one needs at least {batch_size * world.size} "
            f"(--batch_size {batch_size} on {world.size} process(es)); lower --batch_size."
        )
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=StatelessSampler(len(dataset), world, dataset.seed, shuffle, dataset.shards, shard_window),
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=collate,
        drop_last=True,
        generator=torch.Generator(),  # else each pass over the loader would draw from the global one
    )


class ExactSampler(Sampler):
    """This process's share of a data set in which every image has to count exactly once, as `(0, index)` pairs."""

    def __init__(self, length: int, world: World):
        self.indices = range(world.rank, length, world.size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self.indices)


def eval_loader(dataset: EpochDataset, batch_size: int, num_workers: int, world: World) -> DataLoader:
    """All images of a data set, shared by the processes without a duplicate."""
    sampler = ExactSampler(len(dataset), world)
    return DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate, generator=torch.Generator()
    )
