"""Mistakes of the person at the command line, told in one sentence and without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["UserError", "exit_on_user_error"]


class UserError(ValueError):
    """A mistake of the caller; the message names the offending value and the way out."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turns a :class:`UserError` or a missing or unreadable file into one line on stderr and exit code 1."""
    try:
        yield
    except (UserError, FileNotFoundError, PermissionError) as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        sys.exit(1)
