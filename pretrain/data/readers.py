"""Where images come from: timm's readers of folders and Hugging Face data sets, tar files, Fashion-MNIST."""

import gzip
import logging
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data.readers.img_extensions import add_img_extensions
from timm.data.readers.reader_factory import create_reader
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torchvision.datasets import FashionMNIST

from pretrain.common.errors import UserError
from pretrain.common.images import IMAGE_SUFFIXES
from pretrain.data.shared_paths import LabelledPaths
from pretrain.data.tars import TarReader

__all__ = ["FASHION_MNIST", "FashionMnistReader", "open_reader"]

FASHION_MNIST = "fashion_mnist:"

ARCHIVE = re.compile(r"\.(tar(\.\w+)?|t[gbx]z2?)$", re.IGNORECASE)
"""Names of tar files, also of compressed ones, which are told apart from what is unknown but not read."""

SPLIT = re.compile(r"(?:^|[-_.])(train|val|valid|validation|test)(?=[-_.\d]|$)", re.IGNORECASE)
"""In the name of a tar file."""

logger = logging.getLogger(__name__)

add_img_extensions(IMAGE_SUFFIXES)  # timm itself takes JPEG and PNG alone, and passes over others without a word


def open_reader(data_path: str, split: str = "train") -> Any:
    """Finds the images of a split: a folder (with or without class folders), tar files, or a Hugging Face data set.

    Args:
        data_path: a folder, which may hold `train` and `val` folders; a `.tar` file, or a folder of them without
            images beside them, plain or in webdataset's layout; `hfds/NAME`, a data set that the `datasets` package
            knows; or `fashion_mnist:FOLDER`.

    Raises:
        FileNotFoundError: there is nothing at this path.
        UserError: there are no images, a tar file is damaged, or the path has a prefix of timm that cannot be read at
            random.
    """
    prefix = data_path.partition("/")[0]
    if prefix in ("wds", "hfids", "tfds"):
        raise UserError(
            f"{data_path}: images are read in random order, which the stream {prefix}/ does not allow. Give the "
            "folder of the tar shards itself, or hfds/NAME for a Hugging Face data set."
        )
    if data_path.startswith(FASHION_MNIST):
        return FashionMnistReader(data_path.removeprefix(FASHION_MNIST), split)
    if prefix == "hfds":
        try:
            return create_reader(data_path, split=split)
        except ImportError as e:
            raise UserError(f"{data_path}: Hugging Face data sets need the package `datasets`: {e}") from e
        except ValueError as e:
            raise UserError(f"{data_path} has no split {split!r} that can be read: {e}") from e
    path = Path(data_path)
    if not path.exists():
        raise FileNotFoundError(f"There is no data at {data_path}.")
    if (path / split).is_dir():
        path = path / split
    return _open_files(path)


def _open_files(path: Path) -> Any:
    """A folder of images, a tar file, or a folder of tar files."""
    if not path.is_dir():
        if not ARCHIVE.search(path.name):
            raise UserError(f"{path} is neither a folder of images or tar files nor a .tar file.")
        return TarReader([path], folder=False)
    archives = sorted(p for p in path.iterdir() if ARCHIVE.search(p.name) and not p.is_dir())
    tars = [p for p in archives if p.suffix.lower() == ".tar"]
    if archives and _holds_images(path):
        logger.warning(
            "%s holds images, which are read, and %d .tar files, which are not (%s, …): name one to read it.",
            path, len(archives), archives[0].name,
        )  # fmt: skip
    elif archives:
        if tars and len(tars) < len(archives):
            name = next(p.name for p in archives if p not in tars)
            logger.warning("Only .tar files are read, and %s and others like it are not: decompress them.", name)
        _tell_of_several_splits(path, tars or archives)
        return TarReader(tars or archives, folder=True)
    try:
        reader = ReaderImageFolder(str(path))
    except RuntimeError as e:
        raise UserError(f"There are no images in {path}: {e}") from e
    reader.samples = LabelledPaths(reader.samples)
    return reader


def _tell_of_several_splits(folder: Path, tars: list[Path]) -> None:
    splits = dict.fromkeys(found[1].lower() for path in tars if (found := SPLIT.search(path.stem)))
    if len(splits) > 1:
        logger.warning(
            "%s holds tar files of several splits by their names (%s), and all of them are read together. Put those of "
            "each into a folder, such as train and val, to keep them apart.",
            folder, ", ".join(splits),
        )  # fmt: skip


def _holds_images(folder: Path) -> bool:
    walked = os.walk(folder, followlinks=True)  # as timm does
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES for _, _, names in walked for name in names)


class FashionMnistReader:
    """Fashion-MNIST (arXiv:1708.07747), 28×28 grey images padded with black to 32×32, with their labels.

    Args:
        root: the folder given to torchvision's `FashionMNIST`, or one that holds the four IDX files themselves,
            compressed or not, as Debian's package `dataset-fashion-mnist` does.
        split: "train", or "val" or "test" for the 10 000 test images.

    Raises:
        FileNotFoundError: the files are not there.
        UserError: there is no such split, or a file is damaged.
    """

    PADDING = 2

    def __init__(self, root: str, split: str):
        names = {"train": "train", "val": "t10k", "test": "t10k"}
        if split not in names:
            raise UserError(f"Fashion-MNIST has the splits train and val (or test), not {split!r}.")
        self.root, self.split = root, split
        # (N, 28, 28) and (N,)
        self.images = _read_idx(root, f"{names[split]}-images-idx3-ubyte", ndim=3)
        self.labels = _read_idx(root, f"{names[split]}-labels-idx1-ubyte", ndim=1)
        if len(self.images) != len(self.labels):
            raise UserError(f"{root} has {len(self.images)} {split} images but {len(self.labels)} labels.")
        if self.labels.max(initial=0) >= len(FashionMNIST.classes):
            raise UserError(f"{root} has the {split} label {self.labels.max()}, but Fashion-MNIST's are 0 to 9.")
        self.class_to_idx = {name: i for i, name in enumerate(FashionMNIST.classes)}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(np.pad(self.images[index], self.PADDING)), int(self.labels[index])

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return f"{FASHION_MNIST}{self.root} {self.split} image {index}"


def _read_idx(root: str, name: str, ndim: int) -> np.ndarray:
    """An IDX file of bytes: two zeros, type 8, the number of dimensions, their big-endian sizes, the values."""
    folders = (Path(root), Path(root) / "FashionMNIST" / "raw", Path(root) / "raw")
    paths = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"There is no {name} or {name}.gz in {root} or its FashionMNIST/raw. Download it with torchvision "
            f"(FashionMNIST({root!r}, download=True)) or take Debian's package dataset-fashion-mnist."
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        sizes = np.frombuffer(content, ">u4", ndim, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * ndim)
        if content[:4] != bytes([0, 0, 8, ndim]) or sizes.prod() != len(values):
            raise UserError("its header does not describe what follows")
    except (EOFError, OSError, ValueError, zlib.error) as e:
        raise UserError(f"{path} is not a complete IDX file: {e}") from e
    return values.reshape(sizes)
