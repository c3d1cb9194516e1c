"""Where videos come from: folders of files or of frames, by class or flat, and lists."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pretrain.common.errors import UserError
from pretrain.data.shared_paths import SharedPaths
from pretrain.data.video.files import FRAME_SUFFIXES, VIDEO_SUFFIXES, require_av
from pretrain.data.video.lists import LIST_SUFFIXES, Entry, find_list, read_class_names, read_list

__all__ = ["VideoReader", "open_labelled_videos", "open_videos"]

LOOKED_AT = 20
"""Videos of a list that are looked for before anything runs."""


class VideoReader:
    """Paths of videos and the indices of their classes.

    Attributes:
        paths: files or folders of frames; the suffix of a file may be missing.
        labels: index of the class of each, -1 for none.
        class_to_idx: the classes by name.
    """

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], class_to_idx: dict[str, int]):
        self.paths, self.class_to_idx = SharedPaths(paths), class_to_idx
        self.labels = np.asarray(labels, dtype=np.int64)
        if not all(path.is_dir() for path in paths[:LOOKED_AT]):
            require_av()  # now rather than in a worker, where it would look like unreadable files

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, int]:
        return with_suffix(Path(self.paths[index])), int(self.labels[index])

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        path = Path(self.paths[index])
        return path.name if basename else str(path.absolute() if absolute else path)


def with_suffix(path: Path) -> Path:
    """The file that a list means by a name without a suffix."""
    if path.exists():
        return path
    found = (path.with_name(path.name + suffix) for suffix in sorted(VIDEO_SUFFIXES))
    return next((p for p in found if p.exists()), path)


def open_videos(data_path: str, split: str = "train", root: str = "") -> VideoReader:
    """Videos for pretraining, whose labels, if there are any, are not looked at.

    Args:
        data_path: a folder with videos at any depth, which may hold a folder or a list for each split; a list; or one
            video.
        root: folder that paths of a list are relative to; the list's own by default.

    Raises:
        FileNotFoundError: there is nothing at this path.
        UserError: there are no videos, or a list cannot be read.
    """
    path = Path(data_path)
    if not path.exists():
        raise FileNotFoundError(f"There is no data at {data_path}.")
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return _from_entries(read_list(path), Path(root or path.parent), path)
    if path.is_file():
        return VideoReader([path], [-1], {})
    if (path / split).is_dir():
        path = path / split
    elif found := find_list(path, split):
        return _from_entries(read_list(found), Path(root or path), found)
    paths = find_videos(path)
    if not paths:
        raise UserError(
            f"There are no videos in {path}, neither files ({', '.join(sorted(VIDEO_SUFFIXES))}) nor frames."
        )
    return VideoReader(paths, [-1] * len(paths), {})


def open_labelled_videos(data_path: str, split: str, other_split: str = "", root: str = "") -> VideoReader:
    """A split of labelled videos, with its classes.

    Args:
        data_path: a folder that holds a folder of classes, or a list, for each split.
        other_split: lists name no classes, so those of this split's list, if there is one, count too.
        root: as for :func:`open_videos`.

    Raises:
        FileNotFoundError: there is no such data or split.
        UserError: labels are missing, a class folder is empty, or a list cannot be read.
    """
    path = Path(data_path)
    if not path.exists():
        raise FileNotFoundError(f"There is no data at {data_path}.")
    if (path / split).is_dir():
        return _from_class_folders(path / split)
    found = find_list(path, split) if path.is_dir() else None
    if not found:
        raise FileNotFoundError(
            f"There is no folder {path / split} and no list {path / split}.csv: classification needs one of them for "
            "each split, a folder with a folder of videos for each class, or a list of lines 'path label' (or name the "
            "splits with --train_split and --val_split)."
        )
    entries = read_list(found)
    other = find_list(path, other_split) if other_split else None
    classes = _classes(entries, read_list(other) if other else [], path, found)
    return _from_entries(entries, Path(root or path), found, classes)


def find_videos(folder: Path) -> list[Path]:
    """Video files in a folder at any depth, and folders that hold frames and no videos, in a fixed order."""
    videos = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        names = [name for name in sorted(files) if Path(name).suffix.lower() in VIDEO_SUFFIXES]
        videos += [Path(parent, name) for name in names]
        if not names and any(Path(name).suffix.lower() in FRAME_SUFFIXES for name in files):
            videos.append(Path(parent))
    return videos


def _from_class_folders(folder: Path) -> VideoReader:
    paths = find_videos(folder)
    tops = [path.relative_to(folder).parts for path in paths]
    if flat := [path for path, parts in zip(paths, tops, strict=True) if len(parts) < 2]:
        raise UserError(
            f"{folder} holds {len(flat)} video(s) outside of class folders, such as {flat[0].name}, so their labels "
            "are missing. Put every video, or folder of frames, into a folder named after its class."
        )
    classes = sorted({parts[0] for parts in tops})
    if empty := sorted(d.name for d in folder.iterdir() if d.is_dir() and d.name not in classes):
        raise UserError(
            f"{_some(empty)} in {folder} hold(s) no video. An empty class folder would shift the indices of all that "
            "follow; fill or remove it (in train and val alike)."
        )
    if not paths:
        raise UserError(f"There are no videos in the class folders of {folder}.")
    class_to_idx = {name: i for i, name in enumerate(classes)}
    return VideoReader(paths, [class_to_idx[parts[0]] for parts in tops], class_to_idx)


def _classes(entries: Sequence[Entry], others: Sequence[Entry], folder: Path, source: Path) -> dict[str, int]:
    """Class names with their indices; numbers are names too where there is no file of names."""
    labels = [entry.label for entry in entries]
    if None in labels:
        raise UserError(f"{source} has no label for {entries[labels.index(None)].name}, so labels are missing.")
    seen = {label for label in [*labels, *(entry.label for entry in others)] if label is not None}
    named = read_class_names(folder)
    numbered = all(label.isdecimal() for label in seen)
    if named is None:
        named = [str(i) for i in range(max(map(int, seen)) + 1)] if numbered else sorted(seen)
    elif numbered and not seen <= set(named):
        if (most := max(map(int, seen))) >= len(named):
            raise UserError(f"{source} or its fellow has the label {most}, but there are {len(named)} classes.")
    elif unknown := sorted(seen - set(named)):
        raise UserError(f"{source} or its fellow has the label {unknown[0]!r}, which is not among the named classes.")
    return {name: i for i, name in enumerate(named)}


def _from_entries(
    entries: Sequence[Entry], root: Path, source: Path, class_to_idx: dict[str, int] | None = None
) -> VideoReader:
    """The videos of a list, some of which are looked for."""
    paths = [root / entry.name for entry in entries]
    some = paths[:LOOKED_AT]
    if not any(with_suffix(path).exists() for path in some):
        raise FileNotFoundError(
            f"None of the first {len(some)} videos that {source} lists is there, for example {some[0]}; name the "
            "folder that the paths are relative to with --video_root."
        )
    labels = [_index(entry.label, class_to_idx) for entry in entries] if class_to_idx else [-1] * len(entries)
    return VideoReader(paths, labels, class_to_idx or {})


def _index(label: str | None, class_to_idx: dict[str, int]) -> int:
    assert label is not None
    return class_to_idx[label] if label in class_to_idx else int(label)


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
