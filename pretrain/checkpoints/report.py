"""What a conversion did with every tensor, for people to read and for tests to compare."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import starmap

from pretrain.checkpoints.recognition import summarise

__all__ = ["ConversionReport"]


@dataclass
class ConversionReport:
    """
    Attributes:
        source: the file that was converted.
        kind: what it is; `why` gives the evidence, `variant` the sizes of its trunk.
        target: what it became.
        kept: tensors that kept their name.
        renamed: new name of each tensor of the file that has another now; resized ones are here or in `kept` too.
        resized: what happened to the shape of tensors (new names).
        made: tensors that the file does not have, and how they were made.
        dropped: names in the file of what was left out, and why.
        missing: names that the target has beyond the result, and why that is expected.
        target_known: the target's names were given, so that `missing` is complete.
        grid: rows and columns of positions that are no square, such as "4x9"; to be written into the file.
    """

    source: str
    kind: str
    why: str
    variant: str
    target: str
    kept: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    resized: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    target_known: bool = False
    grid: str | None = None

    def take_back(self, name: str) -> str:
        """Forgets that a tensor was kept or renamed to `name`; returns what it is called in the file."""
        if name in self.kept:
            self.kept.remove(name)
            return name
        original = next(old for old, new in self.renamed.items() if new == name)
        del self.renamed[original]
        return original

    def __str__(self) -> str:
        lines = [
            f"{self.source}: {self.kind}",
            f"  because   {self.why}",
            f"  variant   {self.variant}",
            f"  target    {self.target}",
            f"  loaded    {len(self.kept) + len(self.renamed)} tensors",
        ]
        lines += [f"  kept      {summarise(self.kept)}"] if self.kept else []
        lines += [
            f"  renamed   {change} ({n})"
            for change, n in Counter(starmap(_prefix_change, self.renamed.items())).items()
        ]
        lines += [f"  resized   {name}: {change}" for name, change in self.resized.items()]
        lines += self._by_reason("made", self.made)
        lines += self._by_reason("dropped", self.dropped)
        lines += self._by_reason("missing", self.missing)
        if not self.target_known and self.target in ("detection", "segmentation"):
            lines.append("  missing   not compared with a model; a config (--config) does")
        return "\n".join(lines)

    @staticmethod
    def _by_reason(label: str, reasons: Mapping[str, str]) -> list[str]:
        names: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            names.setdefault(reason, []).append(name)
        return [f"  {label:<10}{summarise(group)}: {reason}" for reason, group in names.items()]


def _prefix_change(old: str, new: str) -> str:
    old_parts, new_parts = old.split("."), new.split(".")
    while old_parts and new_parts and old_parts[-1] == new_parts[-1]:
        old_parts.pop()
        new_parts.pop()
    return f"{'.'.join([*old_parts, '*'])} -> {'.'.join([*new_parts, '*'])}"
