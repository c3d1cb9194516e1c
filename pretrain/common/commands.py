"""How commands end: a user's mistake in one sentence, a bug with its traceback."""

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pretrain.common.errors import NonFiniteError, UserError
from pretrain.common.processes import is_first_of_the_living, is_first_to_tell, lost_process

__all__ = [
    "add_launcher_option",
    "add_traceback_option",
    "exit_on_user_error",
    "is_out_of_memory",
    "message_of",
    "name_of_signal",
    "run_command",
    "shows_tracebacks",
]

SHOW_TRACEBACK = "SHOW_TRACEBACK"
"""Environment variable, so that processes which a command starts follow its --traceback."""


OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory", "Cannot allocate memory", "Failed to allocate")
LOADER_ENDED = "DataLoader worker (pid"
UNWRITTEN = ("unexpected pos", "PytorchStreamWriter failed")
"""Parts of the messages of PyTorch, OpenCV and the operating system."""

_NO_MEMORY = "There is not enough memory; take smaller images or batches, or a smaller model"


class _ShowTraceback(argparse.Action):
    def __call__(self, *_: object) -> None:
        os.environ[SHOW_TRACEBACK] = "1"


def add_traceback_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--traceback`, which shows where in the code a user's mistake was noticed."""
    parser.add_argument(
        "--traceback",
        action=_ShowTraceback,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show the traceback of a mistake in the arguments, data or files too",
    )


class _Ignore(argparse.Action):
    def __call__(self, *_: object) -> None:
        pass


def add_launcher_option(parser: argparse.ArgumentParser) -> None:
    """Lets a command take the `--local-rank` of `torch.distributed.launch`, which came before torchrun; the
    environment variable of this name says the same."""
    parser.add_argument(
        "--local-rank", "--local_rank", action=_Ignore, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def shows_tracebacks() -> bool:
    """Whether `--traceback` was given, to this command or the one that started it."""
    return bool(os.environ.get(SHOW_TRACEBACK))


def run_command(command: Callable[[], None]) -> None:
    """Runs one of the package's programs: messages go to the console, a user's mistake ends it with one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    with exit_on_user_error():
        command()


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turns a mistake into one line on stderr, of however many processes meet it, and exit code 1; Ctrl-C is 130.

    Mistakes are a :class:`UserError`, what the operating system refuses (a file that is missing or must not be read, a
    full disk, no memory, a host that is not there), losses that stay non-finite, and other processes of the run that
    have ended. Anything else is a bug and keeps its traceback; with `--traceback` mistakes do as well.
    """
    try:
        yield
    except (UserError, OSError, NonFiniteError, MemoryError, RuntimeError) as e:
        lost = lost_process(e)
        message = lost or message_of(e)
        if shows_tracebacks() or message is None:
            raise
        tells = is_first_of_the_living() if lost else is_first_to_tell()
        sys.exit(f"error: {message}" if tells else 1)
    except KeyboardInterrupt:
        if shows_tracebacks():
            raise
        if is_first_to_tell():
            print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def name_of_signal(signum: int) -> str:
    """What users call it."""
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, PyTorch or OpenCV says that there is not enough memory."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


def message_of(error: BaseException) -> str | None:
    """The message of a mistake, without the traceback that one from a loader's process has in front; None of a bug.

    PyTorch has a RuntimeError for what it cannot allocate, for what it cannot write, and for a loader's process that
    has ended.
    """
    message = str(error).strip()
    if is_out_of_memory(error):
        return f"{_NO_MEMORY} ({message.splitlines()[0][:200]})" if message else _NO_MEMORY
    if message.startswith(LOADER_ENDED):
        return (
            f"A process that reads images has ended ({message.splitlines()[0]}). What it printed tells why; without a "
            "word it was killed, as when memory is out: then take fewer such processes, --num_workers or "
            "dataloader.train.num_workers."
        )
    if any(text in message for text in UNWRITTEN):
        return "A file could not be written; is the disk full? What was written before is intact."
    if not isinstance(error, UserError | OSError | NonFiniteError):
        return None
    if "Traceback (most recent call last)" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) and not error.filename:
        return f"A file could not be written: {error.strerror}. What was written before is intact."
    return message
