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
    WebDataset's shards; else the folder that holds it in the tar file; else, with `folder`, the tar file itself.

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
        of_folders = [os.path.basename(os.path.dirname(text)) for text in texts]
        classes = [_text(labels[i]) or of_folders[i] or of_files[shards[i]] for i in order]
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


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
