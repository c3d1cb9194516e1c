"""Class names in any script are drawn in a font that has their letters, or it is told that none has."""

import numpy as np
import pytest
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font

from lazyrun.viz import fonts
from lazyrun.viz.instances import draw_annotations


def letters(family: str) -> set[int]:
    return set(FT2Font(fontManager.findfont(family, fallback_to_default=False)).get_charmap())


@pytest.fixture
def rare() -> str:
    """A character that matplotlib's usual font lacks, and another one that comes with it has."""
    return chr(max(letters("STIXGeneral") - letters(fonts.USUAL)))


def picture(name: str) -> np.ndarray:
    annotation = {"bbox": [10, 10, 300, 200], "category_id": 1}
    return draw_annotations(np.zeros((320, 400, 3), np.uint8), [annotation], {1: name})


def test_a_font_that_has_the_characters(rare, caplog, recwarn, monkeypatch):
    assert fonts.families_for("Prüfling Ж Ω") == [fonts.USUAL]
    usual, other = fonts.families_for(f"a {rare}")
    assert usual == fonts.USUAL and ord(rare) in letters(other)
    assert ord(rare) in FT2Font(fonts.file_for(rare)).get_charmap()
    drawn = picture(rare * 3)
    assert not [w for w in recwarn if "missing from" in str(w.message)] and not caplog.text
    monkeypatch.setattr("lazyrun.viz.instances.families_for", lambda text: [fonts.USUAL])
    with pytest.warns(UserWarning, match=r"missing from (current )?font"):
        assert not np.array_equal(drawn, picture(rare * 3))


def test_characters_that_no_font_has_are_told_once(caplog, monkeypatch):
    monkeypatch.setattr(fonts, "_characters_of", lambda family: frozenset(range(128)))
    fonts._others.cache_clear()
    fonts._tell.cache_clear()
    monkeypatch.setattr(fonts.warnings, "filterwarnings", lambda *args, **kwargs: None)
    for _ in range(2):
        assert fonts.families_for("cat 고양이") == [fonts.USUAL]
    assert [r.message for r in caplog.records] == [
        "No installed font has '고양이': pictures show boxes in their place. Install one, such as Noto Sans CJK "
        "(Debian: fonts-noto-cjk)."
    ]
    fonts._others.cache_clear()
