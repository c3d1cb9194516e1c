"""Classes that a checkpoint remembers."""

import pytest

from lazyrun.data.categories import stored_categories
from pretrain.common.errors import UserError
from pretrain.common.files import save_atomically

ACE = {"id": 1, "name": "ace"}


def test_categories_of_a_run(tmp_path):
    save_atomically(
        {"model": {}, "categories": [ACE, {"id": 7, "name": "king", "supercategory": "card"}]}, tmp_path / "a"
    )
    assert [c["name"] for c in stored_categories(str(tmp_path / "a"))] == ["ace", "king"]
    assert stored_categories(str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    "categories",
    [7, "ace", {"ace": 1}, ["ace"], [{"id": 1}], [{"name": "ace"}], [{"id": "1", "name": "ace"}], [ACE, ACE]]
    + [[{"id": None, "name": "ace"}], [{"id": 1, "name": ["ace"]}]],
)
def test_malformed_categories_are_refused(tmp_path, categories):
    save_atomically({"model": {}, "categories": categories}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth is not read: its categories are no list"):
        stored_categories(str(tmp_path / "a.pth"))
