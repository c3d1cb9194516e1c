"""Where the images of a tar file lie: found once, as that reads every header of the file, and kept between runs."""

import hashlib
import json
import logging
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from pretrain.common.cache_folder import cache_folder
from pretrain.common.errors import UserError
from pretrain.common.files import replacing
from pretrain.common.images import IMAGE_SUFFIXES, check_regular

__all__ = ["TarIndex", "tar_index"]

logger = logging.getLogger(__name__)

FORMAT = 3
"""Of the files that keep an index; to be raised whenever another version would find something else."""

BLOCK = tarfile.BLOCKSIZE
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""By what a file begins with."""
LARGEST_LABEL = 1 << 20
"""Bytes of a file with a label; a larger one is something else."""


class TarIndex(NamedTuple):
    """The images of a tar file, in its order; of those of the same name the last, as unpacking would leave it.

    Of a sample in WebDataset's sense the image is `KEY.jpg` and nothing else, such as `KEY.seg.png`.

    Attributes:
        names: `(N,)` UTF-8 bytes; a tar file within the tar file counts as a folder.
        offsets: `(N,)` where their content begins, in bytes from the beginning of the file.
        sizes: `(N,)` bytes.
        labels: `(N,)` UTF-8 bytes, what `KEY.cls` or `KEY.json` beside the image says; empty for nothing.
    """

    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray


def tar_index(path: Path) -> TarIndex:
    """The images of a tar file, from an earlier run if the file has not changed since.

    What is found is kept in the folder that `PRETRAIN_CACHE` names, else in `pretrain` of the user's cache folder.

    Raises:
        UserError: it is no tar file, compressed, or damaged.
        OSError: it cannot be read.
    """
    check_regular(path)
    status = path.stat()
    version = np.array([FORMAT, status.st_size, status.st_mtime_ns])
    folder = cache_folder("PRETRAIN_CACHE", "pretrain")
    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:16]
    kept = None if folder is None else folder / f"tar-{name}.npz"
    index = None if kept is None else _read_kept(kept, version)
    if index is None:
        index = _find(path)
        if kept is not None:
            _keep(index, kept, version)
    return index


def _read_kept(path: Path, version: np.ndarray) -> TarIndex | None:
    """None for whatever is missing, damaged, or not of this version of the tar file."""
    try:
        with np.load(path, allow_pickle=False) as content:
            if not np.array_equal(content["version"], version):
                return None
            return TarIndex(*(content[field] for field in TarIndex._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(index: TarIndex, path: Path, version: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, version=version, **index._asdict())
    except OSError as e:
        logger.info("The tar file will be searched again next time: %s", e)


def _find(path: Path) -> TarIndex:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    with open(path, "rb") as file:
        _refuse_compressed(path, file.read(max(map(len, COMPRESSED))))
        try:
            for name, offset, size in _members(file, "", 0, os.fstat(file.fileno()).st_size):
                suffix = PurePosixPath(name).suffix.lower()
                if suffix in IMAGE_SUFFIXES:
                    images.pop(name, None)  # the last one of a name comes in its own place
                    images[name] = offset, size
                elif suffix in (".cls", ".json") and size <= LARGEST_LABEL:
                    file.seek(offset)
                    _note_label(labels, name, file.read(size))
        except (tarfile.TarError, ValueError, OverflowError) as e:  # the latter two where a header has absurd numbers
            raise UserError(f"{path} is no tar file, or it is damaged: {e}. Make or fetch it again.") from e
    images = _without_other_parts(images, path)
    keys = (name.removesuffix(PurePosixPath(name).suffix) for name in images)
    places = np.array(list(images.values()), dtype=np.int64).reshape(-1, 2)
    return TarIndex(
        names=_as_bytes(list(images)),
        offsets=places[:, 0],
        sizes=places[:, 1],
        labels=_as_bytes([labels.get(f"{key}.cls") or labels.get(f"{key}.json", "") for key in keys]),
    )


def _without_other_parts(images: dict[str, tuple[int, int]], path: Path) -> dict[str, tuple[int, int]]:
    """Leaves out other parts of samples, such as the mask `KEY.seg.png` beside the image `KEY.jpg`.

    In WebDataset (https://github.com/webdataset/webdataset) a sample's key is the path up to the first dot of the
    file's name, and what follows is the whole extension. Where there is no `KEY.jpg`, `KEY.seg.png` is an image, and so
    is `KEY.2.jpg`: numbers are in the names of photos, not of parts.
    """
    with_image = {_key(name) for name in images if not _part(name)}
    kept = {name: place for name, place in images.items() if not _part(name) or _key(name) not in with_image}
    if others := images.keys() - kept.keys():
        logger.info("%s: %d file(s) such as %s are no images but parts of samples.", path, len(others), min(others))
    return kept


def _part(name: str) -> str:
    """Which part of a sample a file would be: `seg` of `KEY.seg.png`, empty of `KEY.png` and `KEY.2.png`."""
    parts = PurePosixPath(name).name.split(".")[1:-1]
    return parts[0] if parts and not parts[0].isdigit() else ""


def _key(name: str) -> str:
    """Of a sample in WebDataset."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _refuse_compressed(path: Path, beginning: bytes) -> None:
    for magic, method in COMPRESSED.items():
        if beginning.startswith(magic):
            raise UserError(
                f"{path} is compressed by {method}, but images are read by their place in a plain tar file; "
                "decompress it, which hardly makes it larger, as images are compressed themselves."
            )


def _members(file: BinaryIO, folder: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of the regular files of a tar file, also of those in tar files within it.

    A hard link is the file that it is a link to. What macOS adds to a file, under its name with `._` before it, is left
    out.

    Args:
        folder: goes before the names, "" or with a slash at its end.
        start, end: where in the outermost file this one begins and ends.

    Raises:
        tarfile.TarError, ValueError, OverflowError: it is damaged.
    """
    places: dict[str, tuple[int, int]] = {}
    links = 0
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None and member.offset < end:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all it has seen
            name, offset, size = member.name, member.offset_data, member.size
            if member.islnk() and member.linkname in places:
                offset, size = places[member.linkname]
            elif not member.isreg() or member.issparse():
                links += _is_link_to_image(member)
                continue
            if offset + size > end:
                raise tarfile.ReadError(f"{folder}{name} ends behind the end of the tar file")
            places[name] = offset, size
            if name.lower().endswith(".tar"):
                inner = folder + name.removeprefix("./")[: -len(".tar")] + "/"
                yield from _members(file, inner, offset, offset + size)
            elif not PurePosixPath(name).name.startswith("._"):
                yield folder + name.removeprefix("./"), offset, size
        if links:
            logger.warning("%s: %d link(s) to images are left out; tar -h packs what they lead to.", file.name, links)
        if member is None:
            _check_end(file, tar.offset)


def _is_link_to_image(member: tarfile.TarInfo) -> bool:
    return (member.issym() or member.islnk()) and PurePosixPath(member.name).suffix.lower() in IMAGE_SUFFIXES


def _check_end(file: BinaryIO, offset: int) -> None:
    """Raises tarfile.ReadError unless a tar file may end here: tarfile takes anything but a header for its end."""
    file.seek(offset)
    block = file.read(BLOCK)
    if not block:
        logger.warning("%s has no mark at its end: if it was copied, the copy may be incomplete.", file.name)
    elif block != bytes(BLOCK):
        raise tarfile.ReadError(f"at byte {offset} there is neither a file nor the mark of the end")


def _note_label(labels: dict[str, str], name: str, content: bytes) -> None:
    """Takes note of the text of a `.cls` file, or of the entry "label" of a `.json` file, a number or a text."""
    try:
        label = content.decode("utf-8")
        if name.lower().endswith(".json"):
            entries = json.loads(label)
            value = entries.get("label") if isinstance(entries, dict) else None
            label = str(value) if isinstance(value, int | str) else ""
    except (ValueError, RecursionError):
        label = ""
    labels[str(PurePosixPath(name).with_suffix(PurePosixPath(name).suffix.lower()))] = label.strip()


def _as_bytes(texts: list[str]) -> np.ndarray:
    return np.array([text.encode("utf-8", "surrogateescape") for text in texts], dtype=np.bytes_)
