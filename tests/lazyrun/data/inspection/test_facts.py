"""What is found out about an image file."""

import os

import numpy as np
import pytest
from PIL import ExifTags, Image

from lazyrun.data.images import decode_image
from lazyrun.data.inspection.facts import inspect_image
from lazyrun.data.inspection.oddities import odd_images, same_images, unnamed_images


def turned(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return {"exif": exif}


def animation(colours):
    return [Image.new("RGB", (20, 10), colour) for colour in colours]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))

IMAGES = {
    "plain.jpg": (Image.new("RGB", (20, 10)), {}, None),
    "turned.jpg": (Image.new("RGB", (20, 10)), turned(6), "photos turned by their EXIF data"),
    "grey.png": (Image.new("L", (20, 10)), {}, "grey images"),
    "deep.png": (Image.new("I;16", (20, 10)), {}, "grey images of 16 bits"),
    "print.jpg": (Image.new("CMYK", (20, 10)), {}, "images in CMYK"),
    "glass.png": (Image.new("RGBA", (20, 10)), {}, "images with transparency"),
    "film.gif": (
        Image.new("RGB", (20, 10), "red"),
        {"save_all": True, "append_images": animation(["green", "blue"])},
        "images of several frames",
    ),
    "named.png": (Image.new("RGB", (20, 10)), {"format": "JPEG"}, "files named after another format"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_kinds_of_images(name, tmp_path):
    image, options, kind = IMAGES[name]
    image.save(tmp_path / name, **options)
    facts, version = inspect_image(tmp_path / name)
    status = (tmp_path / name).stat()
    assert version == (status.st_mtime_ns, status.st_size) and not facts.fault
    height, width = decode_image(tmp_path / name, "RGB").shape[:2]
    assert facts.size == (width, height) == ((10, 20) if kind and "EXIF" in kind else (20, 10))
    found = list(odd_images({name: facts}))
    assert [f.kind for f in found] == ([kind] if kind else [])
    assert all(case.startswith(name) for f in found for case in f.cases)


def test_faults(tmp_path):
    NOISE.save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    Image.new("F", (20, 10)).save(tmp_path / "deep.tif")
    faults = {name: inspect_image(tmp_path / name) for name in os.listdir(tmp_path)}
    assert faults.pop("whole.jpg")[0].fault == ""
    assert all(facts.fault for facts, _ in faults.values())
    assert "truncated" in faults["cut.jpg"][0].fault
    assert faults["text.jpg"][0].fault == "it is no image of a known format"
    assert faults["deep.tif"][0].too_deep and not faults["cut.jpg"][0].too_deep
    assert faults["pipe.jpg"][1] is None and faults["folder.jpg"][1] is None
    assert inspect_image(tmp_path / "nul\0.jpg")[0].fault == "there is no such file"
    assert not odd_images({name: facts for name, (facts, _) in faults.items()})


def test_the_same_bytes(tmp_path):
    for name, image in (("a.png", NOISE), ("b.png", NOISE), ("c.png", NOISE), ("d.png", Image.new("RGB", (9, 9)))):
        image.save(tmp_path / name)
    facts = {name: inspect_image(tmp_path / name)[0] for name in ("a.png", "b.png", "c.png", "d.png")}
    train, val = ({n: facts[n] for n in names} for names in (("a.png", "d.png"), ("b.png",)))
    (found,) = same_images({"training": train, "evaluation": val})
    assert found.cases == ["a.png (training) = b.png (evaluation)"] and "training and evaluation" in found.kind
    (found,) = same_images({"training": facts})
    assert found.cases == ["a.png = b.png = c.png"] and found.kind == "images that are twice in training"
    assert not same_images({"training": train})


def test_images_without_an_entry(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.PNG", "sub/c.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (found,) = unnamed_images([f"{tmp_path}/a.png", f"{tmp_path}/gone/x.png"])
    assert found.cases == [f"{tmp_path}/b.PNG"]
    (found,) = unnamed_images(f"{tmp_path}/{name}" for name in ("a.png", "./b.PNG", "sub/d.png"))
    assert found.cases == [f"{tmp_path}/sub/c.jpg"]
