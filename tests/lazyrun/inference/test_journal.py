"""The journal of a prediction: whole lines, in the order of ids, across kills and processes."""

import json

import pytest

from lazyrun.inference.journal import Journal, save_json_list
from pretrain.common.errors import UserError

ABOUT = {"weights": "a.pth", "overrides": ["x=1"]}


def note(journal: Journal, *ids: int) -> None:
    for i in ids:
        journal.add({"id": i, "file_name": f"{i}.jpg"}, [{"image_id": i, "score": s} for s in range(i)])


def test_results_come_in_the_order_of_ids(tmp_path):
    journal = Journal(tmp_path, ABOUT)
    note(journal, 3, 1)
    other = Journal(tmp_path, ABOUT, rank=1)
    note(other, 2)
    assert journal.done() == {"1.jpg", "2.jpg", "3.jpg"}
    journal.merge()
    assert [e["id"] for e in journal.entries()] == [1, 2, 3] and (journal.images, journal.results) == (3, 6)
    assert [r["image_id"] for r in journal.found()] == [1, 2, 2, 3, 3, 3]
    save_json_list(journal.found(), tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == list(journal.found())
    journal.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    save_json_list([], tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == []


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_killed_job_goes_on_with_whole_lines(tmp_path, cut):
    journal = Journal(tmp_path, ABOUT)
    note(journal, 1, 2)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-cut])
    again = Journal(tmp_path, ABOUT, resume=True)
    assert again.done() == {"1.jpg"} and again.images == 1
    note(again, 2)
    assert again.path.read_bytes() == whole
    assert [r["image_id"] for r in again.found()] == [1, 2, 2]


def test_another_prediction_is_not_gone_on_with(tmp_path):
    note(Journal(tmp_path, ABOUT), 1)
    with pytest.raises(UserError, match=r"results of another prediction \(weights differ\)"):
        Journal(tmp_path, {**ABOUT, "weights": "b.pth"}, resume=True)
    (tmp_path / ".predictions-0.jsonl").write_text("{}\n{}\n")
    with pytest.raises(UserError, match=r"not the journal of a prediction|another prediction"):
        Journal(tmp_path, {}, resume=True)
    assert Journal(tmp_path, ABOUT).done() == set()
