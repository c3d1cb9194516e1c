"""Pictures, and a run on them."""

import numpy as np
import pytest
from PIL import Image
from pretraining_runs import arguments
from runs import one_thread

from pretrain.__main__ import main as pretrain_main


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Ten training and two held-out pictures of coloured gradients."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(12):
        path = root / ("train" if i < 10 else "val") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.add.outer(np.arange(48), np.arange(48))[..., None] * generator.random(3)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="session")
def whole_run(images, tmp_path_factory):
    """An uninterrupted run of two epochs of five steps."""
    output_dir = tmp_path_factory.mktemp("whole")
    with one_thread():
        pretrain_main(arguments(images, output_dir))
    return output_dir
