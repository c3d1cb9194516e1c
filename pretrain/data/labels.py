"""Labelled images: their classes, checked before anything runs, and how they are augmented and evaluated."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.data.readers.reader_image_folder import ReaderImageFolder

from pretrain.common.errors import UserError
from pretrain.common.seeding import seeded_everywhere
from pretrain.data.datasets import SeededImages
from pretrain.data.readers import FASHION_MNIST, open_reader
from pretrain.data.tars import TarReader

__all__ = [
    "LabelledImages",
    "LabelledSample",
    "check_same_classes",
    "class_names",
    "open_labelled",
    "take_fraction",
]


class LabelledSample(NamedTuple):
    """An image and its class, or a batch of both.

    Attributes:
        image: pixels `(C, H, W)`, uint8; or normalised, after random erasing; or features.
        label: index of the class, int64.
        unreadable: indices of images that could not be read and were replaced, padded with -1.
    """

    image: torch.Tensor
    label: torch.Tensor
    unreadable: torch.Tensor


class LabelledImages(SeededImages[LabelledSample]):
    """Images with the indices of their classes; `transform` may draw from any of the global generators."""

    seeded: Callable[..., AbstractContextManager[None]] = staticmethod(seeded_everywhere)

    def _sample(self, image: torch.Tensor, label: Any, unreadable: torch.Tensor) -> LabelledSample:
        return LabelledSample(image, torch.tensor(int(label)), unreadable)


def open_labelled(data_path: str, split: str) -> Any:
    """Opens a split of a labelled data set and checks its class folders.

    Args:
        data_path: as for :func:`pretrain.data.readers.open_reader`; a folder must hold one for each split.

    Raises:
        FileNotFoundError: there is no such data or split.
        UserError: labels are missing, a class folder is empty, or folders are nested in one.
    """
    path = Path(data_path)
    if not data_path.startswith((FASHION_MNIST, "hfds/")):
        if not path.exists():
            raise FileNotFoundError(f"There is no data at {data_path}.")
        if not (path / split).is_dir():
            raise FileNotFoundError(
                f"There is no folder {path / split}: classification needs {path}/train and {path}/val, each with a "
                "folder of images for each class (or name the splits with --train_split and --val_split)."
            )
    reader = open_reader(data_path, split)
    if isinstance(reader, ReaderImageFolder):
        _check_class_folders(path / split, reader)
    if isinstance(reader, TarReader):
        _check_labels(path / split, reader)
    if not any(class_names(reader)):
        raise UserError(f"{data_path} names no classes for {split}, so labels are missing.")
    return reader


def class_names(reader: Any) -> list[str]:
    """Names of the classes in the order of their indices."""
    class_to_idx = getattr(reader, "class_to_idx", None) or {}
    return sorted(class_to_idx, key=lambda name: class_to_idx[name])


def _check_class_folders(folder: Path, reader: ReaderImageFolder) -> None:
    prefix = len(str(folder)) + 1
    tops = [path[prefix:].partition(os.sep) for path, _ in reader.samples]
    if flat := sum(not separator for _, separator, _ in tops):
        raise UserError(
            f"{folder} holds {flat} image(s) outside of class folders, so their labels are missing. Put every image "
            "into a folder named after its class; ImageNet's ILSVRC2012_img_val.tar unpacks flat like this and has to "
            "be sorted into the class folders of train first."
        )
    for (top, _, rest), (_, label) in zip(tops, reader.samples, strict=True):
        if reader.class_to_idx.get(top) != label:
            raise UserError(
                f"{folder} holds folders within its class folders, such as {Path(top, rest).parent}: an image's class "
                f"would be the innermost folder, not {top}. Put the images right into the class folders."
            )
    used = {top for top, _, _ in tops}
    if empty := sorted(d.name for d in folder.iterdir() if d.is_dir() and d.name not in used):
        raise UserError(
            f"{_some(empty)} in {folder} hold(s) no image. An empty class folder would shift the indices of all that "
            "follow; fill or remove it (in train and val alike)."
        )


def _check_labels(folder: Path, reader: TarReader) -> None:
    lacking = np.flatnonzero(reader.labels < 0)
    if len(lacking):
        raise UserError(
            f"{len(lacking)} of {len(reader)} image(s) in the tar files of {folder} have no label, for example "
            f"{reader.filename(int(lacking[0]))}: beside KEY.jpg there has to be KEY.cls, or KEY.json with an entry "
            '"label"; or put the images of each class into a folder, or into a tar file, with its name.'
        )
    folders = {os.path.dirname(reader.filename(index)) for index in range(len(reader))}
    of_classes = {path for path in folders if os.path.basename(path) in reader.class_to_idx}
    for path in sorted(of_classes):
        if os.path.dirname(path) in of_classes:
            raise UserError(
                f"The tar files of {folder} have folders within class folders, such as {path}: an image's class would "
                "be the innermost folder. Put the images right into the class folders."
            )


def check_same_classes(train: Sequence[str], val: Sequence[str], data_path: str) -> None:
    """Raises UserError unless both splits have the same classes in the same order."""
    if list(train) == list(val):
        return
    if lacking := sorted(set(train) - set(val)):
        problem = f"its validation images lack the class(es) {_some(lacking)}"
    elif extra := sorted(set(val) - set(train)):
        problem = f"its validation images have the class(es) {_some(extra)}, which training images lack"
    else:
        problem = "the classes of training and validation images differ in their order"
    raise UserError(f"{data_path}: {problem}, so labels would not mean the same in both ({len(train)} and {len(val)}).")


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class ReaderSubset:
    """Some of another reader's images."""

    def __init__(self, reader: Any, indices: Sequence[int]):
        # An array, of which workers do not make copies (see pretrain.data.shared_paths).
        self.reader, self.indices = reader, np.asarray(indices, dtype=np.int64)
        shards = getattr(reader, "shards", None)
        self.shards = None if shards is None else shards[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple:
        return self.reader[int(self.indices[index])]

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return self.reader.filename(int(self.indices[index]), basename, absolute)


def take_fraction(reader: Any, fraction: float, seed: int) -> ReaderSubset:
    """A random share of each class's images, at least one, that depends on the seed alone.

    Raises:
        UserError: `fraction` is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"--label_fraction must be above 0 and at most 1, got {fraction}.")
    labels = _labels(reader)
    generator = np.random.default_rng(seed)
    kept = []
    for label in np.unique(labels):
        indices = generator.permutation(np.flatnonzero(labels == label))
        kept += indices[: max(1, round(fraction * len(indices)))].tolist()
    return ReaderSubset(reader, sorted(kept))


def _labels(reader: Any) -> np.ndarray:
    """The label of every image, without opening any."""
    if isinstance(reader, ReaderImageFolder):
        return reader.samples.labels
    if hasattr(reader, "dataset"):  # Hugging Face
        return np.array(reader.dataset[reader.label_key])
    return np.asarray(reader.labels)
