"""Checkpoint files: written to a temporary name and renamed, read without running any code they contain."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from pretrain.common.errors import UserError

__all__ = [
    "check_output_path",
    "load_checkpoint",
    "load_metadata",
    "replacing",
    "save_atomically",
    "save_json",
    "save_weights",
]


def save_atomically(data: Any, path: str | os.PathLike) -> None:
    """`torch.save` that leaves either the old file or the whole new one, whatever happens in between.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    with replacing(path) as temporary, open(temporary, "wb") as f:
        torch.save(data, f)


def save_json(data: Any, path: str | os.PathLike) -> None:
    """Writes JSON that leaves either the old file or the whole new one.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n")


def save_weights(
    state_dict: Mapping[str, torch.Tensor], path: str | os.PathLike, extras: Mapping[str, str] | None = None
) -> None:
    """Writes weights atomically: `.pth` as `{"model": state_dict, **extras}`, `.safetensors` with extras as metadata.

    Raises:
        UserError: the path ends in neither `.pth` nor `.safetensors`.
        OSError: the file cannot be written; nothing is left of it.
    """
    if _output_suffix(path) == ".pth":
        save_atomically({"model": dict(state_dict), **(extras or {})}, path)
        return
    with replacing(path) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in state_dict.items()}
        save_file(contiguous, temporary, metadata={"format": "pt", **(extras or {})})
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # safetensors makes files that their owner alone can read


def check_output_path(path: str | os.PathLike, force: bool = False) -> None:
    """Says before any work is done why `path` could not be written.

    Raises:
        UserError: it ends in neither `.pth` nor `.safetensors`.
        FileExistsError: it exists and `force` is not given.
        OSError: its folder does not exist or cannot be written to.
    """
    path = Path(path)
    _output_suffix(path)
    if path.is_dir():
        raise IsADirectoryError(f"Output {path} is a directory; name a file in it.")
    if path.exists() and not force:
        raise FileExistsError(f"Output {path} exists already; choose another name or pass --force to replace it.")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"Output {path} cannot be written: there is no directory {path.parent}.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"Output {path} cannot be written: no permission to write in {path.parent}.")


def load_checkpoint(path: str | os.PathLike) -> Any:
    """Reads a `.pth` or `.safetensors` file on the CPU, memory-mapped, without unpickling arbitrary objects.

    Tensors, plain containers and `argparse.Namespace` (found in the published pretraining files) are read, no more.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file is not a checkpoint, is damaged, or holds objects that would have to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Checkpoint {path} does not exist.")
    if path.suffix in (".pkl", ".pyth"):  # of detectron2 and pycls
        raise UserError(
            f"Checkpoint {path} is a pickle, which can run any code when it is opened, so it is not read. If you trust "
            "its source, open it yourself and store its tensors with torch.save or safetensors."
        )
    try:
        return load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except Exception as e:  # torch.load raises a dozen types for a file it cannot read
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UserError(
            f"Checkpoint {path} cannot be read safely: it is damaged, not a PyTorch or safetensors checkpoint, or "
            f"holds objects other than tensors, containers and argparse.Namespace ({reason})"
        ) from e


def load_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata of a `.safetensors` file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as e:
        raise UserError(f"Checkpoint {path} cannot be read, it is damaged: {e}") from e


def _torch_load(path: Path) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))


def _is_zip(path: Path) -> bool:
    """Files written before PyTorch 1.6 are no zip archives and cannot be memory-mapped."""
    with open(path, "rb") as f:
        return f.read(2) == b"PK"


def _output_suffix(path: str | os.PathLike) -> str:
    suffix = Path(path).suffix
    if suffix not in (".pth", ".safetensors"):
        raise UserError(f"Output {path} must end in .pth or .safetensors, got {suffix or 'no suffix'!r}.")
    return suffix


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what was written there takes its place once it is safely on disk.

    The name is always the same, so that what a killed process left there is replaced by the next one, and has the
    suffix of `path`, as writers of pictures and videos need.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except (OSError, RuntimeError, SafetensorError) as e:  # a full disk is any of them
        raise OSError(f"{path} could not be written: {e}") from e
    finally:
        temporary.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    """Makes a renaming last through a power failure."""
    with suppress(OSError):  # some network file systems, and Windows, cannot; the new file is whole all the same
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
