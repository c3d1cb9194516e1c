"""Images in tar files, read by their place in them: no file stays open, so processes share none."""

import io
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from timm.utils.misc import natural_key

from pretrain.common.errors import UserError
from pretrain.data.tar_index import tar_index

__all__ = ["TarReader"]

logger = logging.getLogger(__name__)

SHARD = re.compile(r"(.*[-_])?\d{4,}")
"""What tar files are called that are parts of a data set, such as `train-000123`; another name may be a class."""


class TarReader:
    """The images of tar files, in the order that they would have unpacked into one folder.

    An image's class is what `KEY.cls`, or the entry "label" of `KEY.json`, says beside an image `KEY.jpg`, as in
    WebDataset's shards. If there are no labels at all, it is the folder that holds the image in the tar file; in a tar
    file without folders, with `folder`, the tar file itself.

    Args:
        paths: tar files.
        folder: whether they are all of a folder, so that their names may be those of classes.

    Attributes:
        shards: `(N,)` each image's tar file, an index of `paths`.
        labels: `(N,)` each image's class, an index, or -1 for none.
        class_to_idx: the classes by name.

    Raises:
        UserError: one is no tar file or damaged, or there are no images in them.
        OSError: one cannot be read.
    """

    def __init__(self, paths: Sequence[Path], folder: bool):
        self.paths = sorted(paths, key=lambda path: natural_key(path.name))
        logger.info("Looking for the images of %d tar file(s), %s …", len(self.paths), self.paths[0])
        indices = [tar_index(path) for path in self.paths]
        shards = np.repeat(np.arange(len(indices)), [len(index.names) for index in indices])
        if not len(shards):
            raise UserError(f"There are no images in {' or '.join(map(str, self.paths[:3]))}.")
        names, offsets, sizes, labels = (np.concatenate(parts) for parts in zip(*indices, strict=True))
        texts = [_text(name) for name in names]
        order = sorted(range(len(texts)), key=lambda i: natural_key(texts[i]))
        self.shards, self.names, self.offsets, self.sizes = (a[order] for a in (shards, names, offsets, sizes))
        of_files = ["" if SHARD.fullmatch(path.stem) or not folder else path.stem for path in self.paths]
        classes = _classes([_text(label) for label in labels], texts, shards, of_files)
        classes = [classes[i] for i in order]
        found = sorted({name for name in classes if name}, key=natural_key)
        self.class_to_idx = {name: index for index, name in enumerate(found)}
        self.labels = np.array([self.class_to_idx.get(name, -1) for name in classes])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        size = int(self.sizes[index])
        with open(self.paths[self.shards[index]], "rb") as file:
            file.seek(self.offsets[index])
            content = file.read(size)
        if len(content) < size:
            raise OSError(f"{self.filename(index)} ends early: the tar file has become shorter")
        return io.BytesIO(content), int(self.labels[index])

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        name = _text(self.names[index])
        if basename:
            return os.path.basename(name)
        path = self.paths[self.shards[index]]
        return f"{path.absolute() if absolute else path.name}/{name}"


def _classes(labels: Sequence[str], names: Sequence[str], shards: np.ndarray, of_files: Sequence[str]) -> list[str]:
    """The class of each image, "" for none.

    One place tells those of all: a label that is missing in a data set with labels is none, not the name of a folder
    that holds the images of all classes. So it is with an image beside the class folders in a tar file.
    """
    if any(labels):
        _tell_of_two_kinds(labels, shards)
        return list(labels)
    folders = [os.path.basename(os.path.dirname(name)) for name in names]
    with_folders = {shard for shard, folder in zip(shards, folders, strict=True) if folder}
    return [
        folder or ("" if shard in with_folders else of_files[shard])
        for shard, folder in zip(shards, folders, strict=True)
    ]


def _tell_of_two_kinds(labels: Sequence[str], shards: np.ndarray) -> None:
    """Warns where some tar files have numbers for labels and others have names: these would be classes of their own."""
    numbers, names = (
        {int(shard) for shard, label in zip(shards, labels, strict=True) if label and label.isdecimal() == decimal}
        for decimal in (True, False)
    )
    if numbers - names and names - numbers:
        logger.warning(
            "%d tar file(s) have numbers for labels and %d have names, which are different classes.",
            len(numbers), len(names),
        )  # fmt: skip


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
