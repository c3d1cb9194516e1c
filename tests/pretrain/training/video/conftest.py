"""Videos, a pretraining on them, and a fine-tuning of what it made."""

import numpy as np
import pytest
from clips import write_numbered
from runs import one_thread
from video_runs import arguments, pretraining_arguments

from pretrain import finetune
from pretrain.__main__ import main as pretrain_main
from pretrain.data.video.files import write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Videos that get brighter or darker, six for training and three held out; one is too short for a clip."""
    pytest.importorskip("av")
    root = tmp_path_factory.mktemp("videos")
    for split, count in (("train", 3), ("val", 2)):
        for name, ramp in (("brighter", np.arange(8)), ("darker", np.arange(8)[::-1])):
            (root / split / name).mkdir(parents=True)
            for i in range(count - (split == "val" and name == "darker")):
                frames = np.broadcast_to(ramp[:, None, None, None] * 20 + 40 + 9 * i, (8, 32, 48, 3))
                write_video(frames.astype(np.uint8), root / split / name / f"{i}.mp4")
    write_numbered(root / "train" / "brighter" / "2.mp4", 2)
    return root


@pytest.fixture(scope="session")
def pretrained(videos, tmp_path_factory):
    """Two epochs of three steps."""
    output_dir = tmp_path_factory.mktemp("pretrained")
    with one_thread():
        pretrain_main(pretraining_arguments(videos, output_dir))
    return output_dir


@pytest.fixture(scope="session")
def finetuned(videos, pretrained, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("finetuned")
    with one_thread():
        finetune.main(arguments(videos, output_dir, init_weights=pretrained / "encoder.pth", model_ema=0.9))
    return output_dir
