"""A training loader whose every sample is a pure function of the seed and its place in the stream.

detectron2's own loader draws augmentations from generators that live as long as the workers, so a resumed run sees
other data than the uninterrupted one. Here the shuffle, the grouping into batches and each sample's augmentation follow
from `(seed, place)` alone: a run resumed at iteration N continues with batch N, whatever the number of workers.
"""

import itertools
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.build import trivial_batch_collator
from detectron2.data.detection_utils import get_fed_loss_cls_weights
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from detectron2.utils.registry import locate
from detectron2.utils.serialize import PicklableWrapper
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset, Sampler

from lazyrun.data.corrupt import CORRUPT, MAX_CORRUPT, CorruptImageError, CorruptImages, share_of_corrupt
from pretrain.common.errors import UserError
from pretrain.common.seeding import generators_seeded

__all__ = ["FederatedLossWeights", "TrainingBatchSampler", "build_train_loader", "corrupt_option", "seeded"]

MAX_RETRIES = 10
MAX_CORRUPT_RETRIES = 100
GRACE_SECONDS = 20


def seeded(*key: int) -> AbstractContextManager[None]:
    """Seeds Python's, NumPy's and PyTorch's CPU generator from `key`, and puts their states back afterwards."""
    return generators_seeded(*np.random.SeedSequence([k % 2**64 for k in key]).generate_state(3))


class TrainingBatchSampler(Sampler):
    """An endless stream of batches of `(index, draw)`; this process takes every `world_size`-th draw.

    Each pass over the data is a new shuffle. With `repeat_factors` a pass holds each sample that often, the fraction by
    chance, drawn anew for each pass. With `groups`, a batch holds samples of one group only, as detectron2's
    aspect-ratio grouping does; samples wait until their group fills a batch.

    Args:
        size: number of samples in the data set.
        batch_size: samples a batch on this process.
        seed: seed of the shuffles, the same on all processes.
        groups: one group number a sample, or None for one group.
        repeat_factors: `(size,)`, how often each sample comes in a pass; None for once.

    Attributes:
        start: first batch to give; set it to resume. Earlier batches are counted off without loading anything.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        groups: list[int] | None = None,
        repeat_factors: torch.Tensor | None = None,
    ):
        self.size, self.batch_size, self.seed, self.groups = size, batch_size, seed, groups
        self.repeat_factors = repeat_factors
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        self.start = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[int, list[tuple[int, int]]] = {}
        for draw, index in itertools.islice(enumerate(self._shuffles()), self.rank, None, self.world_size):
            batch = waiting.setdefault(self.groups[index] if self.groups else 0, [])
            batch.append((index, draw))
            if len(batch) == self.batch_size:
                yield batch.copy()
                batch.clear()

    def _shuffles(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            if self.repeat_factors is None:
                indices = torch.arange(self.size)
            else:
                whole = self.repeat_factors.floor()
                extra = torch.rand(self.size, generator=generator) < self.repeat_factors - whole
                indices = torch.arange(self.size).repeat_interleave(whole.long() + extra)
            yield from indices[torch.randperm(len(indices), generator=generator)].tolist()


class _SeededMapDataset(Dataset):
    """Maps the sample of `(index, draw)` under generators seeded by `(seed, draw)`.

    A mapper may give None to skip a sample, and images that cannot be used are skipped: another sample, drawn from the
    same generators, takes its place. The sample names what was skipped for being unusable.
    """

    def __init__(self, dataset: DatasetFromList, mapper: Callable[[dict], dict | None], seed: int):
        self.dataset, self.mapper, self.seed = dataset, PicklableWrapper(mapper), seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, draw = place
        corrupt: list[tuple[str, str]] = []
        for attempt in range(MAX_RETRIES + MAX_CORRUPT_RETRIES):
            if attempt - len(corrupt) == MAX_RETRIES:
                raise UserError(f"The data mapper skipped {MAX_RETRIES} samples in a row; check its filters.")
            if len(corrupt) == MAX_CORRUPT_RETRIES:
                break
            with seeded(self.seed, draw, attempt):
                record = self.dataset[index]
                try:
                    sample = self.mapper(record)
                except CorruptImageError as e:
                    corrupt.append((record["file_name"], str(e)))
                    sample = None
                if sample is not None:
                    return sample | {CORRUPT: corrupt} if corrupt else sample
                index = random.randrange(len(self.dataset))
        return {CORRUPT: corrupt}


class _TrainLoader(DataLoader):
    """A loader that names and counts, in the training process, the images that its workers skipped.

    Args:
        max_corrupt: share of the images that may be unusable.
        kwargs: as of the base class.
    """

    corrupt: CorruptImages

    def __init__(self, *args: Any, max_corrupt: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        dataset: Any = self.dataset
        self.__dict__["corrupt"] = CorruptImages(len(dataset), max_corrupt)

    def __iter__(self) -> Iterator[list[dict]]:  # type: ignore[override]
        for batch in super().__iter__():
            found = [pair for sample in batch for pair in sample.pop(CORRUPT, ())]
            if found:
                self.corrupt.add(found)
                self.corrupt.check()
            if not all(batch):  # what is left of a sample without an image
                raise UserError(f"{MAX_CORRUPT_RETRIES} images in a row cannot be used; the last: {found[-1][1]}")
            yield batch


@dataclass
class FederatedLossWeights:
    """How likely each class is drawn as a negative of the federated loss (CenterNet2, arXiv:2103.07461).

    Called without arguments, as :class:`detectron2.modeling.roi_heads.FastRCNNOutputLayers` does, it gives the number
    of images of each class to the power `freq_weight_power`, `(num_classes,)`.
    """

    dataset_names: str | list[str]
    freq_weight_power: float = 1.0

    def __call__(self) -> torch.Tensor:
        return get_fed_loss_cls_weights(self.dataset_names, self.freq_weight_power)


def corrupt_option(cfg: DictConfig) -> dict[str, float]:
    """The argument that brings `data.max_corrupt` to a config's training loader; none, if that is not this one."""
    target = cfg.dataloader.train.get("_target_")
    ours = (locate(target) if isinstance(target, str) else target) is build_train_loader
    return {"max_corrupt": share_of_corrupt(cfg)} if ours else {}


def _outlive_signals(_: int) -> None:
    # A preempted job's signal, or Ctrl-C, reaches the workers too, but the trainer needs them to finish its iteration.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: signal.alarm(GRACE_SECONDS))


def build_train_loader(
    dataset: list[dict],
    *,
    mapper: Callable[[dict], dict | None],
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    repeat_threshold: float = 0.0,
    num_workers: int = 0,
    seed: int = 0,
    max_corrupt: float = MAX_CORRUPT,
) -> DataLoader:
    """The counterpart of :func:`detectron2.data.build_detection_train_loader` that resumes exactly.

    Args:
        dataset: dicts in detectron2's standard format, with `width` and `height` if they are to be grouped.
        mapper: turns such a dict into the model's input, or into None to skip it.
        total_batch_size: images a batch over all processes.
        aspect_ratio_grouping: keep landscape and portrait images in batches of their own.
        repeat_threshold: an image with a class that fewer than this fraction of all images hold comes more often, by
            the square root of the ratio (repeat-factor sampling, LVIS, arXiv:1908.03195); 0 takes all alike.
        num_workers: loader processes of each training process.
        seed: a negative one is replaced by a random one shared by all processes; then the run cannot be repeated.
        max_corrupt: share of the images that may be unreadable or of another size than annotated; they are skipped.

    Returns:
        an endless loader of lists of dicts; set `loader.batch_sampler.start` to begin at a later batch.

    Raises:
        UserError: the batch size is not a positive multiple of the number of processes.
    """
    world_size = comm.get_world_size()
    if total_batch_size < 1 or total_batch_size % world_size:
        raise UserError(
            f"dataloader.train.total_batch_size={total_batch_size} is not a positive multiple of the {world_size} "
            "training processes."
        )
    if seed < 0:
        seed = comm.shared_random_seed()
    groups = [int(d["width"] > d["height"]) for d in dataset] if aspect_ratio_grouping else None
    factors = (
        RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dataset, repeat_threshold)
        if repeat_threshold
        else None
    )
    sampler = TrainingBatchSampler(len(dataset), total_batch_size // world_size, seed, groups, factors)
    return _TrainLoader(
        _SeededMapDataset(DatasetFromList(dataset, copy=False), mapper, seed),
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
        worker_init_fn=_outlive_signals,
        # Without one of its own the loader draws from the global generator when it starts, in the middle of a step.
        generator=torch.Generator().manual_seed(seed),
        max_corrupt=max_corrupt,
    )
