"""tools/check_data.py: the table, the page, and the exit code."""

import pytest
import tiny_coco
from pages import check_page
from PIL import Image
from scripts import call, load_tool
from shapes import CONFIG, REPO


@pytest.fixture
def photos(tmp_path):
    for number in range(1, 11):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(tmp_path / f"{number}.png")
    tiny_coco.write(tmp_path, tiny_coco.content())
    return tmp_path


def test_table_and_page(photos, tmp_path, monkeypatch, capsys):
    call(load_tool("check_data"), monkeypatch, photos, "--output", tmp_path / "look", "--count", "2")
    said = capsys.readouterr().out
    assert "objects per image" in said and "class kite" in said and said.endswith("Training would begin.\n")
    _, text = check_page((tmp_path / "look" / "data_check.html").read_text())
    assert "Training would begin." in text


def test_refusal(photos, tmp_path, monkeypatch, capsys):
    content = tiny_coco.content()
    content["annotations"][0]["bbox"] = [60, 1, 30, 8]
    tiny_coco.write(photos, content)
    page = tmp_path / "new" / "page.html"
    with pytest.raises(SystemExit, match="error: training would be refused:\n  training: 1 boxes outside their image"):
        call(load_tool("check_data"), monkeypatch, photos, "--output", page, "--count", "0", "data.classes=[kite,disc]")
    assert "Training would be refused" in page.read_text()
    with pytest.raises(SystemExit, match="would be cut off"):
        config = str(REPO / CONFIG)
        call(load_tool("check_data"), monkeypatch, photos, "--output", page, "--config-file", config, "--count", "0",
             "dataloader.train.mapper.augmentations=[]", "data.image_size=32")  # fmt: skip


MISTAKES = [
    (["none"], "none: there is no such file or folder"),
    (["{empty}"], "no annotations beside its 0 images"),
    (["{photos}", "--workers", "0"], "--workers 0 must be at least 1"),
    (["{photos}", "--image-size", "-5"], "--image-size -5 must be at least 1"),
    (["{photos}", "--output", "{photos}/data.json"], "is a file that does not end in .html"),
    (["{photos}", "--config-file", "none.py"], "none.py' does not exist"),
    (["{photos}", "model.x=1"], "has no 'model'"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes(photos, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    arguments = [a.format(photos=photos, empty=tmp_path / "empty") for a in arguments]
    if "--output" not in arguments:
        arguments += ["--output", str(tmp_path / "look"), "--count", "0"]
    with pytest.raises(SystemExit, match="error: ") as caught:
        call(load_tool("check_data"), monkeypatch, *arguments)
    assert message in str(caught.value)
