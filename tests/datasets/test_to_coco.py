"""datasets/to_coco.py: what it writes is what training reads, and what it does not overwrite."""

import json
import runpy
import sys

import pytest
from layouts import BOXES, coco, objects, write_photos, write_voc
from shapes import REPO

from lazyrun.data.formats import read_dataset


@pytest.fixture
def to_coco(monkeypatch):
    """Calls the script in this process."""
    main = runpy.run_path(str(REPO / "datasets" / "to_coco.py"))["main"]

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["to_coco.py", *map(str, arguments)])
        main()

    return call


@pytest.fixture
def voc(tmp_path):
    write_voc(write_photos(tmp_path / "cards"), tmp_path / "cards")
    return tmp_path / "cards"


def test_written_and_read_again(to_coco, voc, tmp_path, capsys, caplog):
    output = tmp_path / "cards.json"
    output.write_text("an earlier one")
    with caplog.at_level("INFO"):
        to_coco(voc, output)
    assert f"cards.json: 2 images, 3 objects, 2 classes; the image folder is {voc}" in capsys.readouterr().out
    assert "Pascal VOC" in caplog.text
    written = json.loads(output.read_text())
    assert objects(written) == objects(coco(BOXES)) and written["info"]["image_root"] == str(voc)
    found = read_dataset(output)
    assert found.annotations == read_dataset(voc).annotations and found.images == read_dataset(voc).images
    to_coco(voc, output, "--classes", "kite", "coin")
    assert [c["name"] for c in json.loads(output.read_text())["categories"]] == ["kite", "coin"]


def test_refusals(to_coco, voc, tmp_path):
    (voc / "c.json").write_text("{}")
    (tmp_path / "link.json").symlink_to(voc / "c.json")
    (tmp_path / "folder.json").mkdir()
    for output, message in [
        (voc / "c.json", "is part of"),
        (tmp_path / "link.json", "is no plain file"),
        (tmp_path / "folder.json", "is no plain file"),
        (tmp_path / "gone" / "c.json", "there is no folder"),
        (tmp_path / "c.txt", "must end in .json"),
    ]:
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            to_coco(voc, output)
    assert (voc / "c.json").read_text() == "{}"
    with pytest.raises(SystemExit, match="has no class 'bird'"):
        to_coco(voc, tmp_path / "c.json", "--classes", "bird")
    assert not (tmp_path / "c.json").exists()
