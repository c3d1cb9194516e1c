"""What runs of `python -m pretrain` write and show, and which steps they take."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pretraining_runs import arguments, checkpoint, losses

from pretrain import visualize
from pretrain.__main__ import main as pretrain_main
from pretrain.common.files import load_checkpoint
from pretrain.training.checkpoint_files import Checkpoints


def test_files_of_a_run(whole_run):
    names = {p.name for p in whole_run.iterdir() if not p.name.startswith("events")}
    assert names == {
        "args.json",
        "log.jsonl",
        "encoder.pth",
        "checkpoint-00000005.pth",
        "checkpoint-00000010.pth",
        "reconstructions",
    }
    first, last = losses(whole_run)
    assert last[0] < first[0] and last[1] < first[1]
    picture = Image.open(whole_run / "reconstructions" / "epoch-0002.png")
    assert picture.size == (4 * 32 + 3 * 4, 2 * 32 + 4)
    encoder = load_checkpoint(whole_run / "encoder.pth")
    full = checkpoint(whole_run, 10)
    assert full["args"] == encoder["args"] == json.loads((whole_run / "args.json").read_text())
    assert full["model"].keys() - encoder["model"].keys() == {
        name for name in full["model"] if name.startswith(("decoder_", "mask_token"))
    }


def test_rotation_never_removes_the_file_just_written(tmp_path):
    state = {"model": {}, "args": {}}
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, 9)
    assert checkpoints.save(state, 5).exists()
    assert checkpoints.files() == [tmp_path / "checkpoint-00000005.pth"]


def test_last_epochs_are_saved_whenever_training_stops(images, tmp_path):
    pretrain_main(arguments(images, tmp_path, epochs=4, save_epochs=2, max_steps=15, resume="auto"))
    assert [checkpoint(tmp_path, step)["epoch"] for step in (10, 15)] == [2, 3]


def test_accumulation_uses_the_last_partial_group(images, tmp_path):
    pretrain_main(arguments(images, tmp_path, batch_size=2, accum_iter=3, epochs=1))
    updates = {s["step"].item() for s in checkpoint(tmp_path, 2)["optimizer"]["state"].values()}
    assert updates == {2}  # 5 micro-batches: 3 and 2


def test_visualize(images, whole_run, tmp_path, address_of):
    output = tmp_path / "pictures" / "grid.png"
    flags = ["--images", str(images), "--output", str(output)]
    visualize.main(["--checkpoint", address_of(whole_run / "checkpoint-00000010.pth"), *flags])
    enlarged = np.array(Image.open(output))
    assert enlarged.shape[1] == 6 * (4 * 32 + 3 * 4)  # small images are shown large
    pixels = torch.from_numpy(enlarged[::6, ::6]).float()
    original, masked, _, pasted = (pixels[:32, i * 36 :][:, :32] for i in range(4))
    visible = (masked == original).all(-1)
    assert 0.2 < visible.float().mean() < 0.4  # one of the four patches
    assert torch.equal(pasted[visible], original[visible])
    with pytest.raises(SystemExit, match="holds an encoder only"):
        visualize.main(["--checkpoint", str(whole_run / "encoder.pth"), *flags])
    checkpoint = str(max(whole_run.glob("checkpoint-*.pth")))
    with pytest.raises(SystemExit, match="animations show videos, and the model is one of images"):
        visualize.main(["--checkpoint", checkpoint, "--images", flags[1], "--output", str(tmp_path / "grid.mp4")])
    with pytest.raises(SystemExit, match=r"grid\.xyz must end in \.png"):
        visualize.main(["--checkpoint", "any.pth", "--images", "any", "--output", "grid.xyz"])
    with pytest.raises(SystemExit, match="--count must be at least 1, got 0"):
        visualize.main(["--checkpoint", "any.pth", *flags, "--count", "0"])
