"""Checkpoints of a run in several files, which its processes write and read side by side.

Such a checkpoint is a folder: the slices that each process has of the weights and of the optimizer's moments in a
`.safetensors` file of its own, by `torch.distributed.checkpoint`, and everything else in `state.pth`. Any number of
processes reads it, one without `torch.distributed` too.

`torch.distributed.checkpoint` has two formats. Its own keeps the table of contents in `.metadata`, a pickle that its
reader opens without restriction, so that a checkpoint could run any code. The one of Hugging Face, used here, has that
table in the headers of the `.safetensors` files. It has no checksums; `state.pth` holds those of all files.
"""

import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.files import file_identity, load_checkpoint, save_atomically
from pretrain.common.temporary import naming_file, replacing_folder

__all__ = [
    "load_skeleton",
    "load_whole",
    "read_tensors",
    "save_sharded",
    "sliced_tensors",
    "with_tensors",
]

STATE = "state.pth"
SHARDS = "shards"
"""Key of `state.pth`: size and CRC-32 of each file with slices."""

_checked: set[tuple[int, ...]] = set()
"""Files that this process has checked."""


def sliced_tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What processes share out of a run's state: `model.NAME`, and `optimizer.INDEX.MOMENT` unless it is a counter."""
    tensors = {f"model.{name}": tensor for name, tensor in state["model"].items()}
    for index, moments in state["optimizer"]["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items() if _is_sliced(t)}
    return tensors


def with_tensors(state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The state with these in place of its :func:`sliced_tensors`; with none it has none."""
    model: dict[str, torch.Tensor] = {}
    moments = {
        index: {name: value for name, value in values.items() if not _is_sliced(value)}
        for index, values in state["optimizer"]["state"].items()
    }
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "model":
            model[rest] = tensor
        else:
            index, _, moment = rest.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
    return {**state, "model": model, "optimizer": {**state["optimizer"], "state": moments}}


def _is_sliced(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0


def save_sharded(state: Mapping[str, Any], path: Path, world: World) -> None:
    """Writes a new checkpoint whole or not at all; called in every process.

    Args:
        state: of a run, with `model` and `optimizer`; its tensors are plain, or of `torch.distributed.tensor`.
        path: of the folder, in a folder that all processes see.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    with _new_folder(path, world) as folder:
        writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
        tensors = {name: tensor.contiguous() for name, tensor in sliced_tensors(state).items()}
        with _plain_errors():
            dcp.save(tensors, storage_writer=writer, no_dist=world.size == 1)
        own = {file.name: _fingerprint(file) for file in folder.glob(f"shard-{world.rank + 1:05d}-*.safetensors")}
        shards: dict[str, tuple[int, int]] = {}
        for found in world.gather(own):
            shards |= found
        if world.is_main:
            save_atomically(with_tensors(state, {}) | {SHARDS: shards}, folder / STATE)


@contextmanager
def _new_folder(path: Path, world: World) -> Iterator[Path]:
    """The main process's temporary folder, in all of them; it gets its name at the end."""
    with ExitStack() as stack:
        folder, failure = path, ""
        if world.is_main:
            try:
                folder = stack.enter_context(replacing_folder(path))
            except OSError as e:
                failure = str(e)
        folder, failure = world.gather((folder, failure))[0]
        if failure:
            raise OSError(failure)
        if not world.is_main:
            stack.enter_context(naming_file(path))
        yield folder


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What went wrong in the first process where it did, in place of an exception that is no `Exception`."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
            yield
    except CheckpointException as e:
        cause = e.failures[min(e.failures)][0]
        if isinstance(cause, OSError):
            raise cause from None
        raise RuntimeError(str(e)) from cause


def load_skeleton(path: Path) -> dict[str, Any]:
    """The state in such a folder, with tensors of the `meta` device in place of its slices; all files are checked.

    Raises:
        UserError: the folder is no checkpoint, or is damaged.
    """
    if not (path / STATE).is_file():
        raise UserError(f"Checkpoint {path} cannot be read: the folder has no {STATE}, so it holds no state of a run.")
    content = load_checkpoint(path / STATE)
    try:
        shards = content.pop(SHARDS)
        _check_files(path, shards)
        metadata = dcp.HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
            for name, entry in metadata.items()
            if isinstance(entry, TensorStorageMetadata)  # safetensors files have nothing else
        }
        return with_tensors(content, tensors)
    except UserError:
        raise
    except Exception as e:  # of whatever else was written into these files
        raise UserError(f"Checkpoint {path} cannot be read: it is damaged ({type(e).__name__}: {e}).") from e


def read_tensors(path: Path, tensors: dict[str, torch.Tensor], together: bool) -> None:
    """Fills tensors with what a folder has under their names.

    Args:
        tensors: plain ones are read whole; of those of `torch.distributed.tensor` each process reads its slice.
        together: whether all processes of the run are here, which slices need.

    Raises:
        OSError: a file cannot be read.
    """
    reader = dcp.HuggingFaceStorageReader(str(path))
    with _plain_errors():
        dcp.load(tensors, storage_reader=reader, no_dist=not together)


def load_whole(path: Path) -> dict[str, Any]:
    """The state in such a folder with whole tensors, as a `.pth` file of the run would have it.

    Raises:
        UserError: the folder is no checkpoint, or is damaged.
        OSError: a file cannot be read.
    """
    state = load_skeleton(path)
    tensors = {name: torch.empty_like(tensor, device="cpu") for name, tensor in sliced_tensors(state).items()}
    read_tensors(path, tensors, together=False)
    return with_tensors(state, tensors)


def _check_files(path: Path, shards: Mapping[str, tuple[int, int]]) -> None:
    """Raises UserError unless the folder has these files with slices, as they were written, and no others."""
    present = {file.name for file in path.glob("*.safetensors")}
    if odd := sorted(present ^ shards.keys()):
        state = "is not of this checkpoint" if odd[0] in present else "is missing"
        raise UserError(f"Checkpoint {path} cannot be read: {odd[0]} {state}.")
    for name, fingerprint in shards.items():
        identity = file_identity(path / name)
        if identity not in _checked and _fingerprint(path / name) != tuple(fingerprint):
            raise UserError(f"Checkpoint {path} cannot be read: {name} is damaged, as its size or checksum shows.")
        _checked.add(identity)


def _fingerprint(file: Path) -> tuple[int, int]:
    """Size and CRC-32."""
    checksum = 0
    with open(file, "rb") as f:
        while block := f.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return file.stat().st_size, checksum
