"""Oddities of a data set, gathered by kind: one sentence for each kind, with examples, and the list of all cases."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from pretrain.common.errors import UserError

__all__ = ["LISTED", "SHOWN", "Finding", "Findings"]

SHOWN = 3
"""Examples in a sentence."""

LISTED = 100_000
"""Most cases of a kind that are kept for the full list; more are counted only."""


@dataclass
class Finding:
    """All cases of one kind.

    Attributes:
        kind: what is odd, such as "boxes outside their image".
        way_out: what is done or to be done about it, or "".
        count: number of cases; 0 for a sentence about the whole set.
        examples: the first few, as sentences name them.
        cases: each in words, with its file where that is known.
    """

    kind: str
    way_out: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.count:
            return self.kind
        shown = ", ".join(self.examples[:SHOWN]) + (", …" if self.count > SHOWN else "")
        return f"{self.count} {self.kind} ({shown})" + (f"; {self.way_out}" if self.way_out else "")


class Findings:
    """Counts what was found of each kind; kinds keep the order in which they first occurred."""

    def __init__(self) -> None:
        self._kinds: dict[str, Finding] = {}

    def note(self, kind: str, example: object, way_out: str = "", *, file: str = "", detail: str = "") -> None:
        """Notes one case of a kind, such as "boxes outside their image", and what is done or to be done about it.

        Args:
            example: the case, in sentences.
            file: where it is, in the full list.
            detail: more about it, in the full list.
        """
        entry = self._kinds.setdefault(kind, Finding(kind, way_out))
        entry.count += 1
        if len(entry.examples) <= SHOWN:
            entry.examples.append(str(example))
        if len(entry.cases) < LISTED:
            entry.cases.append(": ".join(part for part in (file, str(example), detail) if part))

    def add(self, kind: str, examples: Iterable[object], way_out: str = "") -> None:
        """Notes all cases of a kind."""
        for example in examples:
            self.note(kind, example, way_out)

    def say(self, sentence: str) -> None:
        """Notes what concerns the set as a whole."""
        self._kinds.setdefault(sentence, Finding(sentence))

    def count(self, kind: str) -> int:
        """How many cases of a kind there are."""
        return self._kinds[kind].count if kind in self._kinds else 0

    def update(self, others: "Findings") -> None:
        """Takes over the kinds of others; of a kind that both have, theirs counts."""
        copies = {kind: replace(f, examples=[*f.examples], cases=[*f.cases]) for kind, f in others._kinds.items()}
        self._kinds.update(copies)

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._kinds.values())

    def sentences(self) -> list[str]:
        """One for each kind: how many, the first examples, and the way out."""
        return [str(entry) for entry in self]

    def check(self, source: object) -> None:
        """Raises UserError, whose lines begin with the name of the source, if anything was found."""
        if self:
            raise UserError("\n  ".join(f"{source}: {sentence}" for sentence in self.sentences()))
