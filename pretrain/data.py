"""Training images from timm's readers, with randomness that is a function of (seed, epoch, index) alone.

What happens to an image, its random crop as well as its mask, depends on the seed, the epoch and its place in the data
set: not on the number of workers or processes, nor on when a run was interrupted.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from pretrain.distributed import World
from pretrain.images import to_eight_bits

__all__ = [
    "CorruptImages",
    "ImageDataset",
    "Sample",
    "SeededImages",
    "StatelessSampler",
    "generators_seeded",
    "train_loader",
]

MAX_REPLACEMENTS = 50


class Sample(NamedTuple):
    """An image and its mask's noise, or a batch of both.

    Attributes:
        image: `(C, H, W)`, normalised.
        noise: `(L,)` in [0, 1).
        unreadable: `(MAX_REPLACEMENTS,)` indices of images that could not be read and were replaced, padded with -1.
    """

    image: torch.Tensor
    noise: torch.Tensor
    unreadable: torch.Tensor


class CorruptImages:
    """Counts unreadable images, names each once, and says when there are too many.

    Args:
        dataset: the data set the indices are of; it has the method `name`.
        max_share: share of its images that may be unreadable.
    """

    def __init__(self, dataset: Dataset, max_share: float):
        self.dataset, self.max_share = dataset, max_share
        self.indices: set[int] = set()

    def add(self, indices: Iterable[int]) -> list[str]:
        """Takes note of images that this process or another could not read; returns the names of those new to it.

        Raises:
            ValueError: more than `max_share` of the data set cannot be read.
        """
        new = sorted(set(indices) - self.indices)
        self.indices.update(new)
        if len(self.indices) > self.max_share * len(self.dataset):
            raise ValueError(
                f"{len(self.indices)} of {len(self.dataset)} images cannot be read, more than --max_corrupt "
                f"{self.max_share} allows, for example {self.dataset.name(max(new or self.indices))}."
            )
        return [self.dataset.name(index) for index in new]


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seeds torch's generator on the CPU, and leaves it as it was.

    `torch.random.fork_rng` and `torch.manual_seed` do the same for every device, which takes longer than reading a
    small image.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


@contextmanager
def generators_seeded(python_seed: int, numpy_seed: int, torch_seed: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and torch's generators on the CPU, and leaves all as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(int(python_seed))
    np.random.seed(numpy_seed)
    try:
        with torch_seeded(int(torch_seed)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def seeded_torch(*seed: int) -> AbstractContextManager[None]:
    """:func:`torch_seeded` from several numbers."""
    return torch_seeded(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))


def seeded_everywhere(*seed: int) -> AbstractContextManager[None]:
    """:func:`generators_seeded` from several numbers: timm's augmentation draws from all of them."""
    numpy_seed, python_seed = np.random.SeedSequence([*seed, 1]).generate_state(2)
    return generators_seeded(python_seed, numpy_seed, np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


class SeededImages(Dataset):
    """Images of a timm reader, indexed by `(epoch, index)`, which with the seed determine all randomness.

    An image that cannot be read is replaced by the next one that can; the evaluation of labelled images asks for
    `replace=False`, so that each counts once.

    Args:
        transform: of a PIL image to a tensor; draws from torch's global generator, which is seeded for each image.
        seed: with epoch and index determines all randomness.
        mode: of the PIL images: "RGB", or "L" for one channel.
    """

    seeded = staticmethod(seeded_torch)

    def __init__(
        self,
        reader: Any,
        transform: Callable[[Image.Image], torch.Tensor],
        seed: int,
        mode: str,
        replace: bool = True,
    ):
        self.reader, self.transform = reader, transform
        self.seed, self.mode, self.replace = seed, mode, replace

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: tuple[int, int]) -> NamedTuple:
        epoch, index = key
        unreadable = torch.full((MAX_REPLACEMENTS,), -1)
        attempts = min(MAX_REPLACEMENTS, len(self)) if self.replace else 1
        # Leaving the generators as they were keeps workers and the main process alike.
        with self.seeded(self.seed, epoch, index):
            for attempt in range(attempts):
                candidate = (index + attempt) % len(self)
                try:
                    image, label = self._read(candidate)
                except Exception:  # decoders raise a dozen types for a damaged file
                    unreadable[attempt] = candidate
                else:
                    return self._sample(self.transform(image), label, unreadable)
        raise ValueError(f"None of {attempts} image(s) from {self.name(index)} on can be read: are these image files?")

    def _sample(self, image: torch.Tensor, label: Any, unreadable: torch.Tensor) -> NamedTuple:
        raise NotImplementedError

    def _read(self, index: int) -> tuple[Image.Image, Any]:
        file, label = self.reader[index]
        if isinstance(file, Image.Image):
            return to_eight_bits(file).convert(self.mode), label
        with file, Image.open(file) as image:
            return to_eight_bits(image).convert(self.mode), label

    def name(self, index: int) -> str:
        """File name of an image."""
        return self.reader.filename(index, absolute=True)


class ImageDataset(SeededImages):
    """Images for pretraining, each with its mask's noise; labels, if there are any, are ignored.

    Args:
        noise_size: length L of the noise of an image's mask.
        reader, transform, seed, mode: as in :class:`SeededImages`.
    """

    def __init__(
        self, reader: Any, transform: Callable[[Image.Image], torch.Tensor], noise_size: int, seed: int, mode: str
    ):
        super().__init__(reader, transform, seed, mode)
        self.noise_size = noise_size

    def _sample(self, image: torch.Tensor, label: Any, unreadable: torch.Tensor) -> Sample:
        return Sample(image, torch.rand(self.noise_size), unreadable)


class StatelessSampler(Sampler):
    """This process's `(epoch, index)` pairs of one epoch, from `start` on.

    The order is a shuffle seeded by (seed, epoch), dealt out image by image to all processes, so that the images of an
    optimizer step are the same however many processes share it.
    """

    def __init__(self, length: int, world: World, seed: int, shuffle: bool = True):
        self.length, self.world, self.seed, self.shuffle = length, world, seed, shuffle
        self.epoch = self.start = 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Goes to an epoch, leaving out its first `start` images of this process."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.length // self.world.size - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        count = self.length // self.world.size
        mine = order[self.world.rank :: self.world.size][:count]
        return iter([(self.epoch, int(i)) for i in itertools.islice(mine, self.start, None)])


def normalisation(in_chans: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel: ImageNet's, averaged for other than three channels."""
    mean, std = list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD)
    return (mean, std) if in_chans == 3 else ([sum(mean) / 3] * in_chans, [sum(std) / 3] * in_chans)


def train_transform(img_size: tuple[int, int], in_chans: int, crop_min: float = 0.2) -> Callable:
    """A random crop of at least `crop_min` of the image's area, resized, and a flip."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(img_size, scale=(crop_min, 1.0), interpolation=InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(*normalisation(in_chans)),
        ]
    )


def eval_transform(img_size: tuple[int, int], in_chans: int) -> Callable:
    """The largest centre of the image that has the right proportions, resized."""
    return transforms.Compose(
        [
            LargestCentre(img_size),
            transforms.Resize(img_size, interpolation=InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(*normalisation(in_chans)),
        ]
    )


class LargestCentre:
    """Crops an image to its largest centre with the proportions of `size`, height and width."""

    def __init__(self, size: tuple[int, int]):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = min(image.height / self.size[0], image.width / self.size[1])
        return transforms.functional.center_crop(image, [round(side * scale) for side in self.size])


def image_mode(in_chans: int) -> str:
    """Raises ValueError unless PIL has images of this many channels."""
    modes = {1: "L", 3: "RGB"}
    if in_chans not in modes:
        raise ValueError(f"Image files can be read with 1 or 3 channels, not in_chans {in_chans}.")
    return modes[in_chans]


def train_loader(
    dataset: Dataset, batch_size: int, num_workers: int, world: World, pin_memory: bool, shuffle: bool = True
) -> DataLoader:
    """Whole batches of this process; `loader.sampler.set_position` chooses the epoch and where in it to begin.

    Raises:
        ValueError: the data set does not fill one batch of every process.
    """
    if len(dataset) < batch_size * world.size:
        raise ValueError(
            f"{len(dataset)} images give no optimizer step: one needs at least {batch_size * world.size} (--batch_size "
            f"{batch_size} on {world.size} process(es)); lower --batch_size."
        )
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=StatelessSampler(len(dataset), world, dataset.seed, shuffle),
        num_workers=num_workers,
        pin_memory=pin_memory,
        drop_last=True,
        generator=torch.Generator(),  # else each pass over the loader would draw from the global one
    )
