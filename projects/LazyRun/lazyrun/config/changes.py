"""Whose fault it is if a run cannot be set up: mostly that of the user's changes to its config."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf.errors import OmegaConfBaseException

from pretrain.common.commands import message_of
from pretrain.common.errors import UserError
from pretrain.common.processes import lost_process

__all__ = ["UNFIT", "making", "reason_of", "suspecting"]

UNFIT = (
    *(TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError, RuntimeError, ImportError),
    *(NameError, OmegaConfBaseException),
)
"""What classes and functions raise for arguments that they cannot use."""

LONGEST = 300
SHOWN = 5


@contextmanager
def suspecting(changes: Sequence[str]) -> Iterator[None]:
    """Around what sets up a run: an error that a value of a config may cause becomes one sentence with the changes.

    A config of ours as it is has no such errors; without changes they are bugs and stay what they are.

    Args:
        changes: the `key=value` overrides of the run.

    Raises:
        UserError: anything of :data:`UNFIT`.
    """
    try:
        yield
    except UserError:
        raise
    except UNFIT as e:
        if not changes or message_of(e) is not None or lost_process(e) is not None:
            raise
        shown = " ".join(changes[:SHOWN]) + (" …" if len(changes) > SHOWN else "")
        raise UserError(
            f"The run cannot be set up ({reason_of(e)}) with the changes {shown}. If these are right, it is a fault of "
            "the program, and --traceback shows where."
        ) from e


@contextmanager
def making(key: str) -> Iterator[None]:
    """Around what makes a part of a config long after the set-up, such as the evaluator after the last iteration.

    Args:
        key: of the part.

    Raises:
        UserError: its class or function does not take its arguments.
    """
    try:
        yield
    except TypeError as e:
        raise UserError(
            f"{key} cannot be made ({reason_of(e)}). If its values are right, it is a fault of the program, and "
            "--traceback shows where."
        ) from e


def reason_of(error: BaseException) -> str:
    """Message of an error in one line that is not too long, with its type unless it was written for users."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{text[:LONGEST]}{'…' if len(text) > LONGEST else ''}"
