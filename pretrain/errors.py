"""Mistakes of the person at the command line, told in one sentence and without a traceback."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pretrain.distributed import is_first_to_tell

__all__ = ["NonFiniteError", "UserError", "exit_on_user_error", "message_of", "run_command"]


class UserError(ValueError):
    """A mistake of the caller; the message names the offending value and the way out."""


class NonFiniteError(RuntimeError):
    """Losses or gradients stayed non-finite in the highest precision."""


def run_command(command: Callable[[], None]) -> None:
    """Runs one of the package's programs: messages go to the console, mistakes end it with one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    with exit_on_user_error(ValueError, NonFiniteError):
        command()


@contextmanager
def exit_on_user_error(*others: type[Exception]) -> Iterator[None]:
    """Turns a mistake into one line on stderr, of however many processes meet it, and exit code 1.

    Mistakes are a :class:`UserError`, what the operating system refuses (a file that is missing or must not be read, a
    full disk, a host that is not there), and what a program adds in `others`.
    With the environment variable `SHOW_TRACEBACK` set they are raised as they are.
    """
    try:
        yield
    except (UserError, OSError, *others) as e:
        if os.environ.get("SHOW_TRACEBACK"):
            raise
        sys.exit(f"error: {message_of(e)}" if is_first_to_tell() else 1)


def message_of(error: Exception) -> str:
    """The message of an error, without the traceback that one from a data loader's process has in front."""
    message = str(error).strip()
    if "Traceback (most recent call last)" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    return message
