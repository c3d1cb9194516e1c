"""What is remembered of images: used again as long as the file is the same, and never in the way."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from lazyrun.data.inspection import images as module
from lazyrun.data.inspection.images import inspect_images
from lazyrun.data.inspection.memory import ImageMemory, memory_folder

NAMES = ["a.png", "b.png"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two images, a memory of their own, and a count of the files that are opened."""
    monkeypatch.setenv("LAZYRUN_CACHE", str(tmp_path / "memory"))
    (tmp_path / "images").mkdir()
    for name in NAMES:
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / name)
    return tmp_path / "images"


@pytest.fixture
def opened(monkeypatch):
    seen = []
    genuine = module.inspect_image

    def counting(path):
        seen.append(path.name)
        return genuine(path)

    monkeypatch.setattr(module, "inspect_image", counting)
    return seen


def memory_file(tmp_path):
    (file,) = (tmp_path / "memory").glob("images-*.json")
    return file


def test_only_what_changed_is_opened_again(folder, opened):
    first = inspect_images(NAMES, folder)
    assert sorted(opened) == NAMES and first["a.png"].size == (20, 10)
    assert inspect_images(NAMES, folder) == first and len(opened) == 2
    Image.new("RGB", (30, 10)).save(folder / "b.png")
    assert inspect_images(NAMES, folder)["b.png"].size == (30, 10) and opened[2:] == ["b.png"]
    status = (folder / "a.png").stat()  # the same bytes at another time
    os.utime(folder / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    inspect_images(NAMES, folder)
    assert opened[3:] == ["a.png"]
    (folder / "a.png").unlink()
    assert inspect_images(NAMES, folder)["a.png"].fault == "there is no such file"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: '{"images": {"a.png": [1, 2, {}]}}',
        lambda text: '{"images": []}',
        lambda text: text.replace('"root":"', '"root":"/another'),
        lambda text: text.replace('"pillow":"', '"pillow":"0.'),
        lambda text: text.replace('"width":20', '"width":"wide"'),
        lambda text: text.replace('"width":20', '"breadth":20'),
        lambda text: json.dumps(json.loads(text) | {"images": {"a.png": None, "b.png": [1.5, "x", 3]}}),
    ],
)
def test_damaged_and_foreign_files_are_replaced(folder, opened, damage, tmp_path):
    expected = inspect_images(NAMES, folder)
    file = memory_file(tmp_path)
    file.write_text(damage(file.read_text()))
    assert inspect_images(NAMES, folder) == expected and len(opened) == 4
    assert inspect_images(NAMES, folder) == expected and len(opened) == 4


def test_nowhere_to_write(folder, opened, tmp_path, caplog):
    (tmp_path / "memory").write_text("a file where the folder should be")
    with caplog.at_level("INFO"):
        assert inspect_images(NAMES, folder)["b.png"].size == (20, 10)
    assert "The images will be opened again next time" in caplog.text
    assert not list(folder.glob("*.json"))


def test_two_at_once_keep_what_both_found(folder, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: inspect_images([name], folder), NAMES * 5))
    one, two = (ImageMemory(folder, tmp_path / "memory") for _ in range(2))
    facts = inspect_images(NAMES, folder)["a.png"]
    one.put("one", (1, 2), facts)
    two.put("two", (3, 4), facts)
    one.save()
    two.save()
    both = ImageMemory(folder, tmp_path / "memory")
    assert both.get("one", (1, 2)) == both.get("two", (3, 4)) == facts
    assert both.get("one", (1, 3)) is None and not list((tmp_path / "memory").glob("*.tmp*"))


def test_a_run_that_is_stopped_keeps_what_it_has_seen(folder, opened, monkeypatch):
    genuine = module.inspect_image

    def stopped(path):
        if path.name == "b.png":
            raise KeyboardInterrupt
        return genuine(path)

    monkeypatch.setattr(module, "inspect_image", stopped)
    with pytest.raises(KeyboardInterrupt):
        inspect_images(NAMES, folder, workers=1)
    monkeypatch.setattr(module, "inspect_image", genuine)
    inspect_images(NAMES, folder)
    assert opened == ["a.png", "b.png"]


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("LAZYRUN_CACHE", str(tmp_path))
    assert memory_folder() == tmp_path
    monkeypatch.delenv("LAZYRUN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert memory_folder() == tmp_path / ".cache" / "lazyrun"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert memory_folder() == tmp_path / "x" / "lazyrun"
