"""Fonts for class names in any script: what matplotlib's own font lacks is looked for among those installed."""

import logging
import warnings
from functools import cache, lru_cache

from matplotlib.font_manager import FontEntry, fontManager, weight_dict
from matplotlib.ft2font import FT2Font

__all__ = ["families_for", "file_for"]

logger = logging.getLogger(__name__)

USUAL = "DejaVu Sans"
"""Comes with matplotlib, and has the letters of Europe."""

NORMAL = 400
"""Weight of upright regular fonts."""

PLACEHOLDERS = "Last Resort"
"""How fonts are called that have boxes for all characters."""


def families_for(text: str) -> list[str]:
    """Font families that together have all characters of a text, as far as any installed font does.

    Characters that none has are told in the log, once.
    """
    missing = _visible(text) - _characters_of(USUAL)
    return [USUAL, *_others(frozenset(missing))] if missing else [USUAL]


def file_for(text: str) -> str:
    """The file of the one installed font with most of a text's characters."""
    families = families_for(text)
    best = max(families, key=lambda family: len(_visible(text) & _characters_of(family)))
    return _file_of(best)


def _visible(text: str) -> set[int]:
    return {ord(c) for c in text if not c.isspace()}


@lru_cache
def _others(characters: frozenset[int]) -> list[str]:
    """Few families that have these characters, those with most of them first."""
    families, missing = [], set(characters)
    names = sorted({entry.name for entry in fontManager.ttflist if not entry.name.startswith(PLACEHOLDERS)})
    while missing:
        best = max(names, key=lambda name: len(missing & _characters_of(name)))
        if not missing & _characters_of(best):
            _tell("".join(chr(c) for c in sorted(missing)))
            break
        families.append(best)
        missing -= _characters_of(best)
    return families


@lru_cache
def _tell(characters: str) -> None:
    logger.warning(
        f"No installed font has {characters[:20]!r}: pictures show boxes in their place. Install one, such as Noto "
        "Sans CJK (Debian: fonts-noto-cjk)."
    )
    warnings.filterwarnings("ignore", message="Glyph .* missing from")  # which matplotlib says at every picture


@cache
def _characters_of(family: str) -> frozenset[int]:
    """Code points of a family's upright regular font, which text is drawn in."""
    try:
        return frozenset(FT2Font(_file_of(family)).get_charmap())
    except (RuntimeError, OSError):  # a damaged file, or one that is gone
        return frozenset()


def _file_of(family: str) -> str:
    entries = [entry for entry in fontManager.ttflist if entry.name == family]
    return str(min(entries, key=lambda e: (e.style != "normal", abs(_weight(e) - NORMAL))).fname)


def _weight(entry: FontEntry) -> int:
    return weight_dict.get(entry.weight, NORMAL) if isinstance(entry.weight, str) else entry.weight
