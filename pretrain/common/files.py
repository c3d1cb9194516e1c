"""Checkpoint files: written to a temporary name and renamed, read without running any code they contain."""

import argparse
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from pretrain.common.archives import check_archive, is_stored
from pretrain.common.errors import UserError
from pretrain.common.temporary import replacing, save_json
from pretrain.common.tensors import checksum_of, first_non_finite, named_tensors

__all__ = [
    "check_output_path",
    "file_identity",
    "load_checkpoint",
    "load_metadata",
    "replacing",
    "save_atomically",
    "save_json",
    "save_weights",
]


CHECKSUM_KEY = "crc32"
"""In the metadata of `.safetensors` files."""


def save_atomically(data: Any, path: str | os.PathLike) -> None:
    """`torch.save` that leaves either the old file or the whole new one, whatever happens in between.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    with replacing(path) as temporary, open(temporary, "wb") as f:
        try:
            torch.save(data, f)
        except RuntimeError:  # "unexpected pos" where a write failed; writing again tells why
            f.write(bytes(1 << 20))
            f.flush()
            raise


def save_weights(
    state_dict: Mapping[str, torch.Tensor], path: str | os.PathLike, extras: Mapping[str, str] | None = None
) -> None:
    """Writes weights atomically: `.pth` as `{"model": state_dict, **extras}`, `.safetensors` with extras as metadata.

    The latter format has no checksum, so one is added to the metadata.

    Raises:
        UserError: the path ends in neither `.pth` nor `.safetensors`.
        OSError: the file cannot be written; nothing is left of it.
    """
    if _output_suffix(path) == ".pth":
        save_atomically({"model": dict(state_dict), **(extras or {})}, path)
        return
    with replacing(path) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in state_dict.items()}
        checksum = f"{checksum_of(contiguous):08x}"
        save_file(contiguous, temporary, metadata={"format": "pt", CHECKSUM_KEY: checksum, **(extras or {})})


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
    """Reads a `.pth` or `.safetensors` file, or the folder that a run with `--fsdp` writes in place of a file, on the
    CPU, without unpickling arbitrary objects.

    Tensors, plain containers and `argparse.Namespace` (found in the published pretraining files) are read, no more. A
    file is checked when a process reads it for the first time: sizes, then the checksums of a `.pth`
    (:func:`pretrain.common.archives.check_archive`), then that all tensors are dense and finite. For a file of 1 GB
    this takes about 0.6 s. Files of PyTorch before 1.6 have no checksums, nor have `.safetensors` files but those that
    :func:`save_weights` wrote.

    Tensors are memory-mapped unless the archive is compressed.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file is not a checkpoint, is damaged, holds NaN or infinite numbers, tensors that are sparse,
            quantised or have no values, weights whose names are no text, or objects that would have to run code.
    """
    path = Path(path)
    if path.is_dir():
        from pretrain.common.sharded_files import load_whole  # which reads its own files with this function

        return load_whole(path)
    if not path.is_file():
        raise FileNotFoundError(f"Checkpoint {path} does not exist.")
    if path.suffix in (".pkl", ".pyth"):  # of detectron2 and pycls
        raise UserError(
            f"Checkpoint {path} is a pickle, which can run any code when it is opened, so it is not read. If you trust "
            "its source, open it yourself and store its tensors with torch.save or safetensors."
        )
    identity = file_identity(path)
    try:
        content = _read(path, checked=identity in _checked)
    except Exception as e:  # torch.load raises a dozen types for a file it cannot read
        raise UserError(_unreadable(path, e)) from e
    if identity not in _checked:
        _check_tensors(content, path)
        _checked.add(identity)
    return content


_checked: set[tuple[int, ...]] = set()
"""Files that this process has checked."""


def file_identity(path: Path) -> tuple[int, ...]:
    """What stays the same as long as a file does."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path, checked: bool) -> Any:
    if path.suffix == ".safetensors":
        content = load_file(path)  # checks that shapes and offsets cover the file exactly
        expected = None if checked else load_metadata(path).get(CHECKSUM_KEY)
        if expected and expected != f"{checksum_of(content):08x}":
            raise UserError("it is damaged: its checksum (CRC) is another one")
        return content
    stored = False
    if _is_zip(path):
        if not checked:
            check_archive(path)
        stored = is_stored(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=stored)


def _is_zip(path: Path) -> bool:
    """Files written before PyTorch 1.6 are no zip archives and cannot be memory-mapped."""
    with open(path, "rb") as f:
        return f.read(2) == b"PK"


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, UserError):
        return f"Checkpoint {path} is not read: {error}."
    text = str(error)
    # PyTorch's message advises to read the file with weights_only=False.
    named = re.search(r"(?:GLOBAL|class|function|type) (?:<class ')?([A-Za-z_][\w]*(?:\.\w+)+)", text)
    if isinstance(error, pickle.UnpicklingError) and named:
        return (
            f"Checkpoint {path} cannot be read safely: it holds {named[1]}, and only tensors, containers and "
            "argparse.Namespace are read, as other objects can run code."
        )
    reason = text.splitlines()[0] if text and "weights_only" not in text else type(error).__name__
    return (
        f"Checkpoint {path} cannot be read safely: it is damaged, not a PyTorch or safetensors checkpoint, or "
        f"holds objects other than tensors, containers and argparse.Namespace ({reason})"
    )


def _check_tensors(content: Any, path: Path) -> None:
    """Raises UserError for tensors and names that no model can use."""
    for name, tensor in named_tensors(content):
        kinds = {
            "sparse": tensor.layout is not torch.strided,
            "quantised": tensor.is_quantized,
            "meta": tensor.is_meta,
        }
        if kind := next((kind for kind, present in kinds.items() if present), None):
            raise UserError(
                f"Checkpoint {path} is not read: {name} is a {kind} tensor, where only plain ones are read."
            )
    if found := first_non_finite(content):
        raise UserError(
            f"Checkpoint {path} is not read: it holds {found}. It comes from a run that diverged, or is damaged; take "
            "an earlier one."
        )
    if not isinstance(content, Mapping):
        return
    for state in (content, content.get("model"), content.get("state_dict")):
        if isinstance(state, Mapping):
            odd = next((k for k, v in state.items() if isinstance(v, torch.Tensor) and not isinstance(k, str)), None)
            if odd is not None:
                raise UserError(f"Checkpoint {path} is not read: a tensor is named {odd!r}, which is no text.")


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


def _output_suffix(path: str | os.PathLike) -> str:
    suffix = Path(path).suffix
    if suffix not in (".pth", ".safetensors"):
        raise UserError(f"Output {path} must end in .pth or .safetensors, got {suffix or 'no suffix'!r}.")
    return suffix
