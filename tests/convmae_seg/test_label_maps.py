"""Label maps in every convention and format that is read, and one clear sentence for each that is not."""

import re

import numpy as np
import pytest
from detectron2.data import Metadata
from PIL import Image

from convmae_seg.label_maps import check_same_size, read_label_map
from pretrain.common.errors import UserError

FROM_ZERO = Metadata(name="from zero", stuff_classes=["a", "b", "c"], ignore_label=255)
FROM_ONE = Metadata(name="from one", stuff_classes=["a", "b", "c"], ignore_label=255, reduce_zero_label=True)


def save(path, values, mode=None, **options):
    picture = Image.fromarray(np.asarray(values, np.uint8 if mode else None))
    if mode == "P":
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200] + [0] * 759)
    picture.save(path, **options)
    return path


def test_conventions(tmp_path):
    path = save(tmp_path / "a.png", np.uint8([[0, 1, 2, 255]]))
    classes = read_label_map(path, FROM_ZERO)
    assert classes.dtype == np.int64 and classes.tolist() == [[0, 1, 2, 255]]
    path = save(tmp_path / "b.png", np.uint8([[0, 1, 2, 3, 255]]))
    assert read_label_map(path, FROM_ONE).tolist() == [[255, 0, 1, 2, 255]]


def test_another_ignore_label_of_a_registered_data_set(tmp_path):
    path = save(tmp_path / "a.png", np.uint16([[0, 2, 65535]]))
    metadata = Metadata(name="wide", stuff_classes=["a", "b", "c"], ignore_label=65535)
    assert read_label_map(path, metadata).tolist() == [[0, 2, 255]]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_palettes_are_read_by_their_indices(tmp_path, bits):
    path = save(tmp_path / "voc.png", [[0, 1, 2]], "P", bits=bits)
    assert read_label_map(path, FROM_ZERO).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits(tmp_path, name):
    path = save(tmp_path / name, np.uint16([[0, 1], [2, 255]]))
    assert read_label_map(path, FROM_ZERO).tolist() == [[0, 1], [2, 255]]


@pytest.mark.parametrize(
    ("values", "metadata", "message"),
    [
        ([[0, 3]], FROM_ZERO, "holds label 3, but the 3 classes are 0 to 2 .* choose data.ignore_label=0"),
        ([[0, 4]], FROM_ONE, "holds label 4, but the 3 classes are 1 to 3 .* choose data.ignore_label=255"),
    ],
)
def test_unknown_labels(tmp_path, values, metadata, message):
    path = save(tmp_path / "a.png", np.uint8(values))
    with pytest.raises(UserError, match=message):
        read_label_map(path, metadata)


def grey_of_4_bits(path):
    """Pillow does not write such PNGs; one pixel row of values 1 and 2."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)
    pixels = zlib.compress(b"\x00\x12")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: save(p, np.zeros((2, 2, 3), np.uint8)),
            "a picture in RGB, not a label map .* whose indices are the",
        ),
        (lambda p: save(p, np.zeros((2, 2, 4), np.uint8)), "a picture in RGBA, not a label map"),
        (lambda p: save(p, np.zeros((2, 2), np.uint8), format="JPEG"), "is a JPEG, which does not keep class numbers"),
        (lambda p: p.write_text("no picture"), "cannot be read as a picture"),
        (lambda p: None, "does not exist"),
        (grey_of_4_bits, "a grey PNG of 4 bits, which is not read right; save 8 bits"),
    ],
)
def test_what_is_no_label_map(tmp_path, make, message):
    make(tmp_path / "a.png")
    with pytest.raises(UserError, match=message) as caught:
        read_label_map(tmp_path / "a.png", FROM_ZERO)
    assert "\n" not in str(caught.value) and re.search(r"a\.png", str(caught.value))


def test_sizes():
    check_same_size("a.png", (2, 3), "a.jpg", (2, 3))
    with pytest.raises(UserError, match=r"a\.png has 3x2 pixels, but its image a\.jpg has 2x3; a label map must"):
        check_same_size("a.png", (2, 3), "a.jpg", (3, 2))
