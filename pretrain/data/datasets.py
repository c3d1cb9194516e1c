"""Training images from readers, with randomness that is a function of (seed, epoch, index) alone.

What happens to an image, its random crop as well as its mask, depends on the seed, the epoch and its place in the data
set: not on the number of workers or processes, nor on when a run was interrupted.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch.utils.data import Dataset

from pretrain.common.decoders import DEFAULT_DECODER
from pretrain.common.errors import UserError
from pretrain.common.images import check_regular
from pretrain.common.seeding import seeded_torch
from pretrain.data.pixels import Pixels, decode

__all__ = ["CorruptImages", "EpochDataset", "ImageDataset", "MaskedSample", "Sample", "SeededImages"]

MAX_REPLACEMENTS = 50

Sample = TypeVar("Sample", bound=tuple)


class MaskedSample(NamedTuple):
    """An image and its mask's noise, or a batch of both.

    Attributes:
        image: pixels `(C, H, W)`, uint8.
        noise: `(L,)` in [0, 1).
        unreadable: `(MAX_REPLACEMENTS,)` indices of images that could not be read and were replaced, padded with -1.
    """

    image: torch.Tensor
    noise: torch.Tensor
    unreadable: torch.Tensor


class EpochDataset(Dataset):
    """A data set indexed by `(epoch, index)`; a sampler takes each index once in an epoch.

    Attributes:
        seed: of the order, and of whatever is random in its samples.
        noun: what messages call a sample.
        shards: `(N,)` the tar file of each sample, an index; None for samples in other files.
    """

    seed: int
    noun = "image"
    shards: np.ndarray | None = None

    def __len__(self) -> int:
        raise NotImplementedError


class SeededImages(EpochDataset, Generic[Sample]):
    """Images of a timm reader, indexed by `(epoch, index)`, which with the seed determine all randomness.

    An image that cannot be read is replaced by the next one that can; the evaluation of labelled images asks for
    `replace=False`, so that each counts once.

    Args:
        transform: from decoded pixels to a tensor; draws from torch's global generator, which is seeded for each image.
        seed: with epoch and index determines all randomness.
        mode: "RGB", or "L" for one channel.
        decoder: one of :data:`pretrain.common.decoders.DECODERS`.
    """

    seeded: Callable[..., AbstractContextManager[None]] = staticmethod(seeded_torch)

    def __init__(
        self,
        reader: Any,
        transform: Callable[[Pixels], torch.Tensor],
        seed: int,
        mode: str,
        replace: bool = True,
        decoder: str = DEFAULT_DECODER,
    ):
        self.reader, self.transform = reader, transform
        self.seed, self.mode, self.replace, self.decoder = seed, mode, replace, decoder
        self.shards = getattr(reader, "shards", None)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        unreadable = torch.full((MAX_REPLACEMENTS,), -1)
        attempts = min(MAX_REPLACEMENTS, len(self)) if self.replace else 1
        # Leaving the generators as they were keeps workers and the main process alike.
        with self.seeded(self.seed, epoch, index):
            for attempt in range(attempts):
                candidate = (index + attempt) % len(self)
                try:
                    read = self._read(candidate)
                except Exception:  # decoders raise a dozen types for a damaged file
                    unreadable[attempt] = candidate
                else:
                    return self._finish(read, unreadable)
        raise UserError(
            f"None of {attempts} {self.noun}(s) from {self.name(index)} on can be read: are these {self.noun} files?"
        )

    def _finish(self, read: Any, unreadable: torch.Tensor) -> Sample:
        """A sample of what :meth:`_read` returned."""
        image, label = read
        return self._sample(self.transform(image), label, unreadable)

    def _sample(self, image: torch.Tensor, label: Any, unreadable: torch.Tensor) -> Sample:
        raise NotImplementedError

    def _read(self, index: int) -> Any:
        if isinstance(self.reader, ReaderImageFolder):
            check_regular(self.name(index))
        file, label = self.reader[index]
        with file if not isinstance(file, Image.Image) else nullcontext():  # a reader may hold on to its PIL images
            return decode(file, self.mode, self.decoder), label

    def name(self, index: int) -> str:
        """File name of an image."""
        return self.reader.filename(index, absolute=True)


class ImageDataset(SeededImages[MaskedSample]):
    """Images for pretraining, each with its mask's noise; labels, if there are any, are ignored.

    Args:
        noise_size: length L of the noise of an image's mask.
        reader, transform, seed, mode, decoder: as in :class:`SeededImages`.
    """

    def __init__(
        self,
        reader: Any,
        transform: Callable[[Pixels], torch.Tensor],
        noise_size: int,
        seed: int,
        mode: str,
        decoder: str = DEFAULT_DECODER,
    ):
        super().__init__(reader, transform, seed, mode, decoder=decoder)
        self.noise_size = noise_size

    def _sample(self, image: torch.Tensor, label: Any, unreadable: torch.Tensor) -> MaskedSample:
        return MaskedSample(image, torch.rand(self.noise_size), unreadable)


class CorruptImages:
    """Counts unreadable images, names each once, and says when there are too many.

    Args:
        dataset: the data set the indices are of.
        max_share: share of its images that may be unreadable.
    """

    def __init__(self, dataset: SeededImages, max_share: float):
        self.dataset, self.max_share = dataset, max_share
        self.indices: set[int] = set()

    def add(self, indices: Iterable[int]) -> list[str]:
        """Takes note of images that this process or another could not read; returns the names of those new to it.

        Raises:
            UserError: more than `max_share` of the data set cannot be read.
        """
        new = sorted(set(indices) - self.indices)
        self.indices.update(new)
        if len(self.indices) > self.max_share * len(self.dataset):
            raise UserError(
                f"{len(self.indices)} of {len(self.dataset)} {self.dataset.noun}s cannot be read, more than "
                f"--max_corrupt {self.max_share} allows, for example {self.dataset.name(max(new or self.indices))}."
            )
        return [self.dataset.name(index) for index in new]
