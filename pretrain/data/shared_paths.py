"""Paths of millions of files that the workers of a data loader share.

Whoever reads an element of a Python list writes its reference count, and in a forked worker that copies the page of
memory it lies on. A list of ImageNet's 1.28 million files grew by 220 MB in each worker within an eighth of an epoch
(https://github.com/pytorch/pytorch/issues/13246). The elements of an array have no counts.
"""

import os
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

__all__ = ["LabelledPaths", "SharedPaths"]


class SharedPaths(Sequence[str]):
    """Reads like the list of strings it is made from."""

    def __init__(self, paths: Iterable[str | os.PathLike]):
        # One after the other: an array of strings would give each the room of the longest.
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return os.fsdecode(self._bytes[self._ends[place] : self._ends[place + 1]].tobytes())


class LabelledPaths(Sequence[tuple[str, int]]):
    """Reads like the list of pairs that timm's reader of folders has.

    Attributes:
        paths: of the files.
        labels: `(N,)` index of the class of each, int64.
    """

    def __init__(self, samples: Sequence[tuple[str, int]]):
        self.paths = SharedPaths(path for path, _ in samples)
        self.labels = np.array([label for _, label in samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> tuple[str, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, int] | list[tuple[str, int]]:
        if isinstance(index, slice):
            return list(zip(self.paths[index], self.labels[index].tolist(), strict=True))
        return self.paths[index], int(self.labels[index])
