"""Which images a reconstruction is drawn of, and how they are read."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.common.errors import UserError
from pretrain.data.pixels import normalise
from pretrain.evaluation.visualization import load_images
from pretrain.models import build_model


@pytest.fixture(scope="module")
def model():
    return build_model("convmae_convvit_tiny_patch8_32")


@contextmanager
def open_files_limited_to(count):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_images_than_files_may_be_open(tmp_path, model):
    for i in range(80):
        Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(tmp_path / f"{i:02d}.png")
    with open(tmp_path / "00.png") as used, open_files_limited_to(used.fileno() + 20):
        images = load_images(str(tmp_path), model, 70)
    expected = torch.arange(70, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    torch.testing.assert_close(images, normalise(expected))


def test_an_image_that_is_too_large_is_named(tmp_path, model, monkeypatch):
    Image.new("RGB", (32, 32)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"large\.png cannot be read as an image: Image size \(1024 pixels\) exceeds"):
        load_images(str(tmp_path / "large.png"), model, 1)
