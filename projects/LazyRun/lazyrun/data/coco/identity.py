"""Ids of images and categories, which files give as numbers, as text or as both."""

import re
from collections import Counter
from collections.abc import Hashable, Sequence

__all__ = ["IdMap", "whole_number"]

EXACT = 2**53
"""Whole numbers up to this are exact in every program that evaluates or writes JSON."""


def whole_number(value: object) -> int | None:
    """A whole number given as such, with a decimal point or as text; None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,30}(\.0*)?", value.strip()):
        return int(value.strip().partition(".")[0])
    return None


class IdMap:
    """The ids of images as whole numbers: the file's own where all of them are, else 1, 2, 3, … in the file's order.

    Args:
        ids: as the file has them.

    Attributes:
        renumbered: they are not the file's.
        twice_or_missing: ids that occur twice, or are no ids.
        odd: ids for which they were renumbered.
    """

    REMEDY = "counted from 1 in evaluation; result files hold the ids of the annotation file."

    def __init__(self, ids: Sequence[object]):
        keys = [_key(i) for i in ids]
        self.odd = [i for i, key in zip(ids, keys, strict=True) if not (isinstance(key, int) and abs(key) <= EXACT)]
        self.renumbered = any(isinstance(i, str | int | float) for i in self.odd)
        counts = Counter(keys)
        self.twice_or_missing = [key for key, count in counts.items() if count > 1 or key is None]
        self._numbers: dict[Hashable, int] = {}
        for number, key in enumerate(keys, start=1):
            if key is not None:
                assert self.renumbered or isinstance(key, int), "other keys are renumbered"
                self._numbers[key] = key if isinstance(key, int) and not self.renumbered else number

    def get(self, value: object) -> int | None:
        """The number of an image by the file's id, which may be text in one place and a number in another."""
        found = self._numbers.get(_key(value))
        if found is None and isinstance(value, str):
            found = self._numbers.get(whole_number(value))
        elif found is None and isinstance(value, int):
            found = self._numbers.get(str(value))
        return found


def _key(value: object) -> Hashable:
    """What ids are compared by: numbers by value, text as it is, None for what is no id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int | str) else None
