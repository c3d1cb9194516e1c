"""Pictures of three classes, a pretraining on them, and a fine-tuning of what it made."""

import numpy as np
import pytest
from classification_runs import CLASSES, arguments
from PIL import Image
from runs import one_thread

from pretrain import finetune
from pretrain.__main__ import main as pretrain_main


def picture(kind, generator):
    base = {"bright": 200, "dark": 40, "striped": 120}[kind]
    pixels = np.full((32, 32), base) + (kind == "striped") * 80 * (np.arange(32) % 8 < 4)
    return Image.fromarray((pixels + generator.integers(0, 30, (32, 32))).astype(np.uint8))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Three classes that are easy to tell, four training and three held-out pictures of each."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for kind in CLASSES:
            (root / split / kind).mkdir(parents=True)
            for i in range(count):
                picture(kind, generator).save(root / split / kind / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def pretrained(data, tmp_path_factory):
    """A pretraining file of one step, at 32x32 pixels."""
    output_dir = tmp_path_factory.mktemp("pretrained")
    flags = arguments(data, output_dir, model="convmae_convvit_tiny_patch8_32", epochs=1, batch_size=12)
    with one_thread():
        pretrain_main(flags)
    return output_dir / "encoder.pth"


@pytest.fixture(scope="session")
def finetuned(data, pretrained, tmp_path_factory):
    """Two epochs of three steps with everything switched on."""
    output_dir = tmp_path_factory.mktemp("finetuned")
    with one_thread():
        finetune.main(arguments(data, output_dir, init_weights=pretrained, model_ema=0.9, save_steps=1))
    return output_dir
