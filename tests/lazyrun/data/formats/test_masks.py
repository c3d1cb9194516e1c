"""Instance masks: numbered pixels, palettes, colours, a file for each object; and what is refused, by file."""

import numpy as np
import pytest
from layouts import HEIGHT, PHOTOS, POLYGONS, WIDTH, coco, masks, pixels, write_photos
from PIL import Image

from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError

ONE_CLASS = [(name, "coin", parts) for name, _, parts in POLYGONS] + [
    ("été.JPG", "coin", [[2, 2, 20, 2, 20, 30, 2, 30]])
]


def expected():
    content = coco([], ONE_CLASS)
    content["categories"] = [{"id": c["id"], "name": "object"} for c in content["categories"]]
    return masks(content)


def numbered(name, step=1):
    """Numbers of the objects of one image, those of an object as far as no later one covers it."""
    drawn = np.zeros((HEIGHT, WIDTH), np.int32)
    for number, parts in enumerate((p for n, _, p in ONE_CLASS if n == name), 1):
        drawn[pixels(parts)] = step * number
    return drawn


def grey(drawn):
    return Image.fromarray(drawn.astype(np.uint8))


def deep(drawn):
    return Image.fromarray((drawn * 300).astype(np.uint16))


def palette(drawn):
    image = Image.fromarray(drawn.astype(np.uint8), "P")
    image.putpalette([7, 7, 7] * 256)
    return image


def colours(drawn):
    return Image.fromarray(np.stack([drawn * 9, drawn * 0, drawn * 70], axis=2).astype(np.uint8))


@pytest.mark.parametrize("encode", [grey, deep, palette, colours])
def test_numbered_pixels(tmp_path, encode):
    write_photos(tmp_path / "images")
    (tmp_path / "masks").mkdir()
    for name in PHOTOS[:2] + PHOTOS[3:]:
        encode(numbered(name)).save(tmp_path / "masks" / f"{name.rpartition('.')[0]}.png")
    found = read_dataset(tmp_path)
    assert masks(found) == expected() and found.names == ["object"]
    assert "1 images without mask are left out (empty.jpg)" in found.notes
    assert all(isinstance(a["segmentation"]["counts"], str) for a in found.annotations)


def save_objects(folder, name):
    folder.mkdir(parents=True)
    for number, parts in enumerate(p for n, _, p in ONE_CLASS if n == name):
        Image.fromarray(pixels(parts).astype(np.uint8) * 255).save(folder / f"{number}.png")


def test_a_file_for_each_object(tmp_path):
    write_photos(tmp_path / "images")
    for name in PHOTOS:
        save_objects(tmp_path / "masks" / name.rpartition(".")[0], name)
    assert masks(read_dataset(tmp_path)) == expected()


def test_the_layout_of_the_data_science_bowl(tmp_path):
    for name in PHOTOS:
        folder = tmp_path / "stage1_train" / name.rpartition(".")[0]
        save_objects(folder / "masks", name)
        (folder / "images").mkdir()
        (write_photos(tmp_path / "source") / name).rename(folder / "images" / name)
    assert masks(read_dataset(tmp_path / "stage1_train")) == expected()


def test_refusals(tmp_path):
    write_photos(tmp_path / "images")
    (tmp_path / "masks").mkdir()
    file = tmp_path / "masks" / "b.png"
    grey(pixels(POLYGONS[1][2]) * 255).save(file)
    with pytest.raises(UserError, match=r"b\.png: 2 separate areas of one number, .* do not tell objects apart"):
        read_dataset(tmp_path)
    grey(numbered("b.png")[:-1]).save(file)
    with pytest.raises(UserError, match=r"b\.png: a mask of 64x47 for an image of 64x48"):
        read_dataset(tmp_path)
    for mode, refusal in (("F", "not fractions"), ("CMYK", "a mask of 9x9 for an image of 64x48")):
        Image.new(mode, (9, 9), 0.5 if mode == "F" else None).save(file.with_suffix(".tif"))
        file.unlink(missing_ok=True)
        with pytest.raises(UserError, match=rf"b\.tif.*{refusal}"):
            read_dataset(tmp_path)
    file.with_suffix(".tif").unlink()
    file.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b\.png cannot be read as a mask"):
        read_dataset(tmp_path)
    file.unlink()
    grey(numbered("b.png")).save(file.with_suffix(".jpg"))
    with pytest.raises(UserError, match=r"b\.jpg: a mask must be stored without loss"):
        read_dataset(tmp_path)
    file.with_suffix(".jpg").unlink()
    grey(numbered("b.png")).save(tmp_path / "masks" / "gone.png")
    with pytest.raises(UserError, match=r"gone\.png: its image is missing"):
        read_dataset(tmp_path)
