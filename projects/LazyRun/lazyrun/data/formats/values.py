"""Numbers, tables and lists as annotation files hold them; a value of another type is a sentence that shows it."""

import math
from collections.abc import Iterable
from typing import Any

from pretrain.common.errors import UserError

__all__ = ["entries", "number", "numbers", "table"]


def number(value: object, where: str, what: str) -> float:
    """A finite number from JSON or text.

    Raises:
        UserError: it is none.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        result = float(value)
    except (ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise UserError(f"{where}: {what} is {_shown(value)}, not a number; correct or remove it.")
    return result


def table(value: object, where: str, what: str) -> dict[str, Any]:
    """An object of JSON; null is an empty one.

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: {what} is {_shown(value)}, not a table of keys and values; correct or remove it.")
    return value


def entries(value: object, where: str, what: str) -> list:
    """A list of JSON, or the values of an object; null is an empty one.

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list | dict):
        raise UserError(f"{where}: {what} is {_shown(value)}, not a list; correct or remove it.")
    return list(value.values()) if isinstance(value, dict) else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def numbers(values: object, keys: Iterable[str], where: str) -> list[float]:
    """The numbers that a dict or the attributes of an XML element have under these keys.

    Raises:
        UserError: one is missing, or not a number.
    """
    if not hasattr(values, "get"):
        raise UserError(f"{where}: it is {_shown(values)}, without coordinates; correct or remove it.")
    return [number(values.get(key), where, key) for key in keys]
