"""One run in one folder at a time."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain.common.errors import UserError
from pretrain.common.temporary import naming_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["run_lock"]

NAME = "run.lock"


@contextmanager
def run_lock(folder: str | os.PathLike) -> Iterator[None]:
    """Makes the folder, if need be, and keeps other processes from running in it.

    The lock is one of the operating system's on a file there, and ends with this process, however that ends; a file
    that a killed process left does not matter. Processes forked from this one do not inherit it. File systems without
    locks, and Windows, give none.

    Raises:
        UserError: another process runs in the folder; the message names it.
    """
    path = Path(folder) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(path)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)  # while it is locked: no one else's can have this name
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """The file's descriptor; None where files cannot be locked."""
    while fcntl is not None:
        # No link is followed, or the process's number would be written to wherever it leads.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise UserError(
                f"{path.parent} is in use by {holder}, which runs there. Wait for its end, or choose another folder."
            ) from e
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            os.ftruncate(descriptor, 0)
            with naming_file(path):
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return descriptor
        os.close(descriptor)  # its holder has just ended, and removed it
    return None


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
