"""What a soak tries and counts."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from soaking.sandbox import Ended

__all__ = ["FAULTS", "Case", "Kind", "Tally", "Verdict", "judge"]

FAULTS = ("dead end", "inexact", "accepted", "traceback", "hang")
"""What may be found, in the order of the table's columns."""

TITLES = ("kind", "tried", "dead ends", "inexact", "silently accepted", "tracebacks", "hangs")


@dataclass(frozen=True)
class Case:
    """One try: what it may draw from, and where it may write."""

    rng: random.Random
    folder: Path


@dataclass(frozen=True)
class Verdict:
    """How a command took a case.

    Attributes:
        shown: what was done, for a reader: the command and what was wrong with its input.
        fault: one of :data:`FAULTS`; None if it was taken well.
        details: what was seen.
    """

    shown: str
    fault: str | None = None
    details: str = ""


Kind = Callable[[Case], Verdict]


def judge(shown: str, ended: Ended, accepted: str | None = None) -> Verdict:
    """The verdict on a command that may end in any way but a bad one.

    Args:
        accepted: what it must not have taken without a word, if it ended well.
    """
    if ended.code == 99:
        raise RuntimeError(f"the soak could not begin {shown}: {ended.sentence}")
    if ended.fault:
        return Verdict(shown, ended.fault, ended.sentence)
    if ended.code == 0 and accepted:
        return Verdict(shown, "accepted", accepted)
    return Verdict(shown)


@dataclass
class Tally:
    """Counts of all kinds, and the faults with what shows them again."""

    tried: Counter = field(default_factory=Counter)
    faults: Counter = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def add(self, kind: str, number: int, seed: int, verdict: Verdict) -> None:
        self.tried[kind] += 1
        if verdict.fault:
            self.faults[kind, verdict.fault] += 1
            again = f"python tests/soak.py --seed {seed} --case {kind}:{number}"
            self.found.append(f"{verdict.fault}: {verdict.shown}\n    {verdict.details}\n    {again}")

    def table(self, kinds: Iterable[str]) -> str:
        """A Markdown table with a row for each kind that was tried, and their sums."""
        rows = [[kind, self.tried[kind], *(self.faults[kind, f] for f in FAULTS)] for kind in kinds if self.tried[kind]]
        rows.append(["all", *(sum(int(row[i]) for row in rows) for i in range(1, len(TITLES)))])
        lines = [TITLES, ["---"] + ["---:"] * (len(TITLES) - 1), *rows]
        return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
