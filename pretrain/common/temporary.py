"""Files and folders that appear whole or not at all, and what killed processes left of them."""

import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

__all__ = ["naming_file", "remove_folder", "remove_leftovers", "replacing", "replacing_folder", "save_json"]

_STARTED = time.time()
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_SILENT_SECONDS = 3600
"""A temporary file of another machine that nobody wrote to for this long has no writer any more."""

_NAME = re.compile(r"\.(?P<stem>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{16}\.tmp(\..*)?")
_FORMER_NAME = re.compile(r"\..+\.tmp(\.(pth|json|jsonl|yaml|pkl|png))?|\.config-\w{8}")
"""Names of version 0.1.0."""

_STEM_LENGTH = 60
"""Characters of a name that are kept: file systems allow 255 bytes."""

_cleaned: set[Path] = set()
"""Folders that this process has rid of leftovers."""

_PROBE = b"\0" * (1 << 20)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary file beside `path`; what was written there takes its place once it is safely on disk.

    The file is new and empty and its name cannot be guessed, so that nobody can have put a link there. It has the
    suffix of `path`, as writers of pictures and videos need. Before a process writes to a folder for the first time,
    it removes what killed ones left there.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; the old one is as it was.
    """
    path = Path(path)
    temporary = _new_name(path)
    if path.parent not in _cleaned:
        _cleaned.add(path.parent)
        remove_leftovers(path.parent)
    try:
        # O_EXCL follows no link; the permissions are those of any new file.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as e:
        raise _unwritten(path, e) from e
    permissions = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(permissions)  # safetensors makes files that their owner alone can read
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as e:
        raise _unwritten(path, e) from e
    except (RuntimeError, SafetensorError) as e:  # of PyTorch and safetensors, which do not say why they cannot write
        fault = _disk_fault(temporary)
        if fault is None and isinstance(e, RuntimeError):
            raise
        raise _unwritten(path, fault or e) from e
    finally:
        temporary.unlink(missing_ok=True)


def save_json(data: Any, path: str | os.PathLike) -> None:
    """Writes JSON that leaves either the old file or the whole new one.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n")


@contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a new folder beside `path`, which must not exist yet, that gets this name once everything is in it.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    path = Path(path)
    temporary = _new_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, of=path.name)
        temporary.mkdir()
        yield temporary
        temporary.rename(path)
        _sync_directory(path.parent)
    except OSError as e:
        raise _unwritten(path, e) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: str | os.PathLike) -> None:
    """Removes a folder that at no time is half there under its own name."""
    doomed = _new_name(Path(path))
    os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


@contextmanager
def naming_file(path: str | os.PathLike) -> Iterator[None]:
    """Gives an OSError of a write, which does not know its file, the name of the file."""
    try:
        yield
    except OSError as e:
        raise _unwritten(Path(path), e) from e


def remove_leftovers(folder: str | os.PathLike, of: str | None = None) -> None:
    """Removes the temporary files and folders in `folder` whose writers are dead; those of live ones stay.

    Args:
        of: only those of the file or folder of this name.
    """
    for path in sorted(Path(folder).glob(".*")):
        name = _NAME.fullmatch(path.name)
        if of is not None and not (name and name["stem"] == Path(of).stem[:_STEM_LENGTH]):
            continue
        with suppress(OSError):  # another process may remove it as well
            written = path.lstat().st_mtime
            if name:
                dead = _is_dead(name["host"], int(name["pid"]), written)
            else:
                dead = bool(_FORMER_NAME.fullmatch(path.name)) and written < _STARTED
            if dead and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif dead:
                path.unlink()


def _new_name(path: Path) -> Path:
    token = secrets.token_hex(8)
    return path.with_name(f".{path.stem[:_STEM_LENGTH]}.{_HOST}-{os.getpid()}-{token}.tmp{path.suffix}")


def _is_dead(host: str, pid: int, written: float) -> bool:
    """Whether the process that wrote a temporary file is gone, as far as this one can know."""
    if host == _HOST and os.name == "posix":
        if pid == os.getpid():
            return written < _STARTED  # by an earlier process of this number, as containers have
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
    return written < time.time() - _SILENT_SECONDS


def _unwritten(path: Path, cause: Exception) -> OSError:
    reason = (cause.strerror if isinstance(cause, OSError) else None) or cause
    return OSError(f"{path} could not be written: {reason}")


def _disk_fault(temporary: Path) -> OSError | None:
    """Why nothing can be added to a file; None if something can."""
    try:
        with open(temporary, "ab") as f:
            f.write(_PROBE)
    except OSError as e:
        return e
    return None


def _sync_directory(path: Path) -> None:
    """Makes a renaming last through a power failure."""
    with suppress(OSError):  # some network file systems, and Windows, cannot; the new file is whole all the same
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
