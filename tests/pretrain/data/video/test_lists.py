"""The forms of lists, and what readers make of them."""

import json

import numpy as np
import pytest
from PIL import Image

from pretrain.common.errors import UserError
from pretrain.data.labels import take_fraction
from pretrain.data.video.lists import Entry, find_list, read_class_names, read_list
from pretrain.data.video.readers import open_labelled_videos, open_videos

pytest.importorskip("av")


@pytest.mark.parametrize(
    ("name", "text", "entries"),
    [
        ("a.txt", "a/b c.mp4 3\nd.mp4 0\n", [("a/b c.mp4", "3"), ("d.mp4", "0")]),
        ("a.csv", "a.mp4,3\nb.mp4, dancing, slowly\n", [("a.mp4", "3"), ("b.mp4", "dancing, slowly")]),
        ("a.csv", "path,label\na.mp4,3\n", [("a.mp4", "3")]),
        ("a.csv", "Video; Class\na;kite\n", [("a", "kite")]),
        ("a.csv", "videos/path.mp4,class\n", [("videos/path.mp4", "class")]),
        ("a.csv", "video,first-class\nid,middle class\n", [("video", "first-class"), ("id", "middle class")]),
        ("a.csv", "path, frames, label\na,3\n", [("a", "3")]),
        ("a.txt", "a.mp4 archery\nb.mp4\n", [("a.mp4", "archery"), ("b.mp4", None)]),
        ("a.txt", "frames/a 120 3\n", [("frames/a", "3")]),
        ("a.csv", "100218;Holding something\n", [("100218", "Holding something")]),
        (
            "a.csv",
            "label,youtube_id,time_start,time_end,split\ntesting apple,--6bJUbfpnQ,17,27,test\n",
            [("--6bJUbfpnQ_000017_000027", "testing apple")],
        ),
        (
            "a.json",
            json.dumps([{"id": "74225", "label": "spinning a cube", "template": "Spinning [something]"}, {"id": 7}]),
            [("74225", "Spinning something"), ("7", None)],
        ),
        (
            "a.json",
            json.dumps({"x": {"annotations": {"label": "abseiling", "segment": [3.0, 13.0]}, "subset": "train"}}),
            [("x_000003_000013", "abseiling")],
        ),
    ],
)
def test_forms(tmp_path, name, text, entries):
    (tmp_path / name).write_text(text)
    assert read_list(tmp_path / name) == [Entry(*entry) for entry in entries]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv lists no video"),
        ("a.csv", b"path,label\n", "a.csv lists no video"),
        ("a.csv", b"\xff\xfe\x00", "it is not text"),
        ("a.json", b"{", "is not valid JSON"),
        ("a.json", b'{"x": 1}', "no list of videos in a known form"),
        ("a.json", b'[{"name": "x"}]', "no list of videos in a known form"),
        ("a.json", b'[{"id": "x\\ud83d"}]', "cannot be the name of a file"),
        ("a.csv", b"a.mp4\0,3\n", "cannot be the name of a file"),
    ],
)
def test_mistaken_lists(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_list(tmp_path / name)


def test_the_list_of_a_split(tmp_path):
    for name in ("kinetics400_val_list.txt", "something-something-v2-train.json", "trains.csv"):
        (tmp_path / name).touch()
    assert find_list(tmp_path, "train").name == "something-something-v2-train.json"
    assert find_list(tmp_path, "val").name == "kinetics400_val_list.txt" and find_list(tmp_path, "test") is None
    (tmp_path / "my_train.csv").touch()
    with pytest.raises(ValueError, match="holds several lists for train"):
        find_list(tmp_path, "train")
    (tmp_path / "train.csv").touch()
    assert find_list(tmp_path, "train").name == "train.csv"


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def described(reader, folder):
    return [(str(path.relative_to(folder)), label) for path, label in (reader[i] for i in range(len(reader)))]


def test_folders_of_classes(tmp_path):
    make(tmp_path, "train/run/b.mp4", "train/run/deep/a.WEBM", "train/jump/c.avi", "train/jump/notes.txt")
    make(tmp_path, "train/jump/frames/1.png", "train/jump/frames/2.png")
    reader = open_labelled_videos(str(tmp_path), "train")
    found = [("jump/c.avi", 0), ("jump/frames", 0), ("run/b.mp4", 1), ("run/deep/a.WEBM", 1)]
    assert described(reader, tmp_path / "train") == found and reader.class_to_idx == {"jump": 0, "run": 1}
    assert len(take_fraction(reader, 0.5, 0)) == 2
    assert [path for path, _ in described(open_videos(str(tmp_path)), tmp_path / "train")] == [p for p, _ in found]
    make(tmp_path, "train/flat.mp4")
    with pytest.raises(ValueError, match=r"1 video\(s\) outside of class folders, such as flat.mp4"):
        open_labelled_videos(str(tmp_path), "train")
    (tmp_path / "train/flat.mp4").unlink()
    (tmp_path / "train/sit").mkdir()
    with pytest.raises(ValueError, match=r"sit in .*train hold\(s\) no video"):
        open_labelled_videos(str(tmp_path), "train")
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*val and no list .*val.csv"):
        open_labelled_videos(str(tmp_path), "val")


def test_lists_with_numbers_and_with_names(tmp_path):
    videos = make(tmp_path / "videos", "a.mp4", "b.webm", "c.mp4")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.csv").write_text("a.mp4 0\nb 2\n")
    (lists / "val.csv").write_text("c.mp4 1\n")
    for split, other in (("train", "val"), ("val", "train")):
        reader = open_labelled_videos(str(lists), split, other, str(videos))
        assert list(reader.class_to_idx) == ["0", "1", "2"]
    assert described(open_labelled_videos(str(lists), "train", "val", str(videos)), videos)[1] == ("b.webm", 2)
    assert len(open_videos(str(lists / "val.csv"), root=str(videos))) == 1
    (lists / "classes.txt").write_text("run\njump\nsit\n")
    assert list(open_labelled_videos(str(lists), "val", "", str(videos)).class_to_idx) == ["run", "jump", "sit"]
    (lists / "val.csv").write_text("c.mp4 3\n")
    with pytest.raises(ValueError, match="has the label 3, but there are 3 classes"):
        open_labelled_videos(str(lists), "val", "", str(videos))
    (lists / "val.csv").write_text("c.mp4 swim\n")
    with pytest.raises(ValueError, match="has the label 'swim', which is not among"):
        open_labelled_videos(str(lists), "val", "", str(videos))
    (lists / "val.csv").write_text("c.mp4\n")
    with pytest.raises(ValueError, match=r"has no label for c\.mp4, so labels are missing"):
        open_labelled_videos(str(lists), "val", "", str(videos))
    with pytest.raises(FileNotFoundError, match=r"None of the first 2 videos .* with --video_root"):
        open_labelled_videos(str(lists), "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"kite\ncoin\nkite\n", r"classes\.txt: line 3 names 'kite' again"),
        (b"kite\n\ncoin\n", r"classes\.txt: line 2 is empty"),
        (b"caf\xe9\n", r"classes\.txt is no list of class names: it is not UTF-8 text"),
    ],
)
def test_mistaken_class_names(tmp_path, content, message):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_class_names(tmp_path)


def test_class_names_are_lines(tmp_path):
    (tmp_path / "classes.txt").write_text("kite\r\ncoin of gold \n\n", encoding="utf-8-sig")
    assert read_class_names(tmp_path) == ["kite", "coin of gold"]


def test_something_something(tmp_path):
    make(tmp_path, "1.webm", "2.webm")
    for split, label in (("train", "Holding [something]"), ("validation", "Pushing [something]")):
        entries = [{"id": "1" if split == "train" else "2", "template": label}]
        (tmp_path / f"something-something-v2-{split}.json").write_text(json.dumps(entries))
    labels = {"Pushing something": "0", "Holding something": "1"}
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(labels))
    reader = open_labelled_videos(str(tmp_path), "train", "validation")
    assert described(reader, tmp_path) == [("1.webm", 1)] and list(reader.class_to_idx) == list(labels)
    (tmp_path / "something-something-v2-labels.json").write_text('{"a": "1"}')
    with pytest.raises(ValueError, match="does not number its 1 classes from 0 to 0"):
        open_labelled_videos(str(tmp_path), "train", "validation")


def test_one_video_and_no_videos(tmp_path):
    make(tmp_path, "a.mp4", "empty/readme.md")
    assert len(open_videos(str(tmp_path / "a.mp4"))) == 1
    with pytest.raises(ValueError, match=r"There are no videos in .*empty"):
        open_videos(str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="There is no data at nowhere"):
        open_videos("nowhere")


def test_frames_need_no_decoder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a" / "1.png")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert len(open_videos(str(tmp_path))) == 1
    make(tmp_path, "0.mp4")
    with pytest.raises(ValueError, match="decoded with PyAV, which is not installed: pip install"):
        open_videos(str(tmp_path))
