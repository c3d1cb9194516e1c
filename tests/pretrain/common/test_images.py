"""Grey images of 16 bits become the grey images of 8 bits that they would be."""

import os

import numpy as np
import pytest
from PIL import Image

from pretrain.common.images import check_regular, to_eight_bits

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("low_byte", [0, 255])
def test_sixteen_bits(tmp_path, suffix, low_byte):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY.astype(np.uint16) * 256 + low_byte).save(path)
    with Image.open(path) as image:
        eight = to_eight_bits(image)
    assert eight.mode == "L" and np.array_equal(np.asarray(eight), GREY)


def test_big_endian():
    image = Image.frombytes("I;16B", (16, 16), (GREY.astype(np.uint16) << 8).astype(">u2").tobytes())
    assert np.array_equal(np.asarray(to_eight_bits(image)), GREY)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK"])
def test_other_images_stay(mode):
    image = Image.fromarray(GREY).convert(mode)
    assert to_eight_bits(image) is image


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits_are_refused(tmp_path, dtype):
    Image.fromarray(GREY.astype(dtype)).save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image, pytest.raises(ValueError, match="pixels have 32 bits"):
        to_eight_bits(image)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(OSError, match=r"a\.png is no regular file"):
        check_regular(tmp_path / "a.png")
    Image.new("L", (3, 3)).save(tmp_path / "b.png")
    check_regular(tmp_path / "b.png")
    check_regular("in a tar file")
