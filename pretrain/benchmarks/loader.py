"""How many images a core reads, crops and normalises in a second: the published loader, ours by decoder, timm's and
torchvision's, on the same files."""

import copy
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torchvision
from timm.data import ImageDataset as TimmDataset
from timm.data import create_loader, create_transform
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import decode_image
from torchvision.transforms import (
    Compose,
    InterpolationMode,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    ToTensor,
    v2,
)

from pretrain.common.decoders import DECODERS
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.measure import interleaved_times
from pretrain.data.augmentation import finetune_transform, posterize_to_some_bits
from pretrain.data.datasets import EpochDataset, ImageDataset
from pretrain.data.labels import LabelledImages, ReaderSubset
from pretrain.data.pixels import images_on, normalisation
from pretrain.data.readers import open_reader
from pretrain.data.samplers import train_loader
from pretrain.data.transforms import evaluation_pixels, evaluation_transform, train_transform

__all__ = ["benchmark_loader"]

CPU = torch.device("cpu")
PUBLISHED = "published: PIL images, normalised one by one"
POLICY = "rand-m9-mstd0.5-inc1"


def benchmark_loader(data_path: str, kind: str, images: int, batch_size: int, input_size: int, rounds: int) -> str:
    """Reads the same images with each loader, in turn, in this process.

    Args:
        data_path: a folder of images.
        kind: one of :data:`pretrain.names.LOADER_TRANSFORMS`. In fine-tuning the published loader is the one on timm's
            transform, and torchvision's newer ones are left out.
        images: how many are read in a round; those that fill no batch are left out.
        input_size: side of the crops in pixels.
        rounds: that the medians are taken of.

    Returns:
        a Markdown table.

    Raises:
        FileNotFoundError, UserError: there is no folder of at least a batch of images.
    """
    reader = open_reader(data_path)
    count = min(images, len(reader)) // batch_size * batch_size
    if not isinstance(reader, ReaderImageFolder) or not count:
        raise UserError(f"{data_path} must be a folder of at least {batch_size} images (--batch_size).")
    subset = ReaderSubset(reader, range(count))
    files = _Files(data_path, [subset.filename(i, absolute=True) for i in range(count)])
    shuffle, size = kind != "evaluation", (input_size, input_size)
    published: DataLoader = DataLoader(files.read_by(_published(kind, size)), batch_size, shuffle)
    loaders: dict[str, Iterable[Any]] = {PUBLISHED: published}
    loaders |= {f"ours, --decoder {name}": _ours(subset, name, kind, batch_size, size) for name in DECODERS}
    loaders["timm's loader"] = _timm(subset, kind, batch_size, input_size)
    if kind != "finetune":
        for name, read in (("PIL images", files.loader), ("decode_image", partial(decode_image, mode="RGB"))):
            newer = files.read_by(_torchvision(kind, size), read)
            loaders[f"torchvision's v2, {name}"] = DataLoader(newer, batch_size, shuffle)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = {name: partial(_read, loader) for name, loader in loaders.items()}
        seconds = interleaved_times(steps, CPU, rounds, clock=time.process_time)
    finally:
        torch.set_num_threads(threads)
    title = (
        f"{kind}, {count} images of {data_path}, batch {batch_size} at {input_size} pixels, images per second of CPU "
        f"time, median of {rounds} rounds, torch {torch.__version__}, torchvision {torchvision.__version__}"
    )
    rows = ["| | images/s and core | ratio |", "|---|---|---|"]
    rows += [f"| {name} | {count / spent:.0f} | {seconds[PUBLISHED] / spent:.2f} |" for name, spent in seconds.items()]
    return "\n".join([title, "", *rows])


def _read(batches: Iterable[Any]) -> None:
    """A pass over a loader; batches become what a model takes."""
    for batch in batches:
        images_on(batch[0], CPU)


def _ours(reader: ReaderSubset, decoder: str, kind: str, batch_size: int, size: tuple[int, int]) -> DataLoader:
    images: EpochDataset
    if kind == "pretrain":
        images = ImageDataset(reader, train_transform(size), (size[0] // 16) ** 2, 0, "RGB", decoder)
    else:
        transform = finetune_transform(size, 3, POLICY) if kind == "finetune" else evaluation_pixels(size)
        images = LabelledImages(reader, transform, 0, "RGB", decoder=decoder)
    return train_loader(images, batch_size, 0, World(), pin_memory=False)


def _timm(reader: ReaderSubset, kind: str, batch_size: int, input_size: int) -> Iterable[Any]:
    """timm's loader with its prefetcher, which normalises whole batches."""
    mean, std = (tuple(values) for values in normalisation(3))
    training: dict[str, Any] = dict(scale=(0.2, 1.0), color_jitter=None)
    options: dict[str, dict[str, Any]] = {
        "pretrain": training,
        "finetune": dict(color_jitter=None, auto_augment=POLICY, re_prob=0.25, re_mode="pixel"),
        "evaluation": dict(crop_pct=0.875),
    }
    images = TimmDataset("", reader=reader)
    loader = create_loader(
        images,
        (3, input_size, input_size),
        batch_size,
        is_training=kind != "evaluation",
        interpolation="bicubic",
        mean=mean,
        std=std,
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
        device=CPU,
        **options[kind],
    )
    posterize_to_some_bits(images.transform.transforms)
    return loader


class _Files(ImageFolder):
    """torchvision's data set of chosen files of a folder, which need not be in class folders."""

    def __init__(self, folder: str, files: list[str]):
        super().__init__(folder)
        self.samples = [(file, 0) for file in files]

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        return [""], {"": 0}

    def read_by(self, transform: Callable, loader: Callable[[str], Any] | None = None) -> "_Files":
        """The same files, read and transformed otherwise."""
        other = copy.copy(self)
        other.transform, other.loader = transform, loader or self.loader
        return other


def _published(kind: str, size: tuple[int, int]) -> Callable:
    """The transforms of MAE's and ConvMAE's repositories, which ours were before they left normalisation to batches."""
    if kind == "finetune":
        mean, std = (tuple(values) for values in normalisation(3))
        options: dict[str, Any] = dict(color_jitter=None, auto_augment=POLICY, re_prob=0.25, re_mode="pixel")
        transform = create_transform((3, *size), True, interpolation="bicubic", mean=mean, std=std, **options)
        posterize_to_some_bits(transform.transforms)
        return transform
    if kind == "evaluation":
        return evaluation_transform(size, 3)
    crop = RandomResizedCrop(size, (0.2, 1.0), interpolation=InterpolationMode.BICUBIC)
    return Compose([crop, RandomHorizontalFlip(), ToTensor(), Normalize(*normalisation(3))])


def _torchvision(kind: str, size: tuple[int, int]) -> Callable:
    """The newer transforms of torchvision, as its reference recipes put them together."""
    geometry: dict[str, list[Callable]] = {
        "pretrain": [
            v2.RandomResizedCrop(size, (0.2, 1.0), interpolation=InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
        ],
        "evaluation": [v2.Resize(int(size[0] / 0.875), InterpolationMode.BICUBIC), v2.CenterCrop(size)],
    }
    to_input = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*normalisation(3))]
    return v2.Compose([v2.ToImage(), *geometry[kind], *to_input])
