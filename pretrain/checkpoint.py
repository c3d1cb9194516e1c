"""Checkpoint files: written to a temporary name and renamed, read without running any code they contain."""

import argparse
import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["load_checkpoint", "save_atomically"]


def save_atomically(data: Any, path: str | os.PathLike) -> None:
    """`torch.save` that leaves either the old file or the whole new one, whatever happens in between."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            torch.save(data, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | os.PathLike) -> Any:
    """Reads a `.pth` file on the CPU, memory-mapped, without unpickling arbitrary objects.

    Tensors, plain containers and `argparse.Namespace` (found in the published pretraining files) are read, no more.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint, is damaged, or holds objects that would have to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Checkpoint {path} does not exist.")
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        except Exception as e:  # torch.load raises a dozen types for a file it cannot read
            reason = str(e).splitlines()[0] if str(e) else type(e).__name__
            raise ValueError(
                f"Checkpoint {path} cannot be read safely: it is damaged, not a PyTorch checkpoint, or holds objects "
                f"other than tensors, containers and argparse.Namespace ({reason})"
            ) from e


def _is_zip(path: Path) -> bool:
    """Files written before PyTorch 1.6 are no zip archives and cannot be memory-mapped."""
    with open(path, "rb") as f:
        return f.read(2) == b"PK"
