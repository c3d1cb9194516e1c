"""Oddities of a data set, gathered by kind: one sentence for each kind, with examples."""

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["SHOWN", "Findings"]

SHOWN = 3
"""Examples in a sentence."""


@dataclass
class _Kind:
    way_out: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """Counts what was found of each kind; kinds keep the order in which they first occurred."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def note(self, kind: str, example: object, way_out: str = "") -> None:
        """Notes one case of a kind, such as "boxes outside their image", and what is done or to be done about it."""
        entry = self._kinds.setdefault(kind, _Kind(way_out))
        entry.count += 1
        if len(entry.examples) <= SHOWN:
            entry.examples.append(str(example))

    def add(self, kind: str, examples: Iterable[object], way_out: str = "") -> None:
        """Notes all cases of a kind."""
        for example in examples:
            self.note(kind, example, way_out)

    def count(self, kind: str) -> int:
        """How many cases of a kind there are."""
        return self._kinds[kind].count if kind in self._kinds else 0

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def sentences(self) -> list[str]:
        """One for each kind: how many, the first examples, and the way out."""
        return [
            f"{entry.count} {kind} ({', '.join(entry.examples[:SHOWN])}{', …' if entry.count > SHOWN else ''})"
            + (f"; {entry.way_out}" if entry.way_out else "")
            for kind, entry in self._kinds.items()
        ]
