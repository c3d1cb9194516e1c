"""Whole pretraining runs on videos, and pictures of what they reconstruct."""

import preloaded
import pytest
import torch
from PIL import Image
from runs import ENVIRONMENT, log, result
from video_runs import assert_same_run, killed_at, pretraining_arguments

from pretrain import visualize
from pretrain.__main__ import main as pretrain_main
from pretrain.common.files import load_checkpoint
from pretrain.data.video.files import open_video


def test_pretraining(pretrained):
    names = {p.name for p in pretrained.iterdir() if not p.name.startswith("events")}
    assert {"args.json", "log.jsonl", "encoder.pth", "checkpoint-00000006.pth", "reconstructions"} <= names
    first, last = log(pretrained)
    assert last["train_loss"] < first["train_loss"] and "val_loss" in last
    assert first["short_videos"] == last["short_videos"] == 1 and "rotated_videos" not in last
    # Two clips, four rows each; four frames in columns
    picture = Image.open(pretrained / "reconstructions" / "epoch-0002.png")
    assert picture.size == (4 * 32 + 3 * 4, 8 * 32 + 7 * 4)
    assert result(pretrained, "args")["flip"] is True


def test_killed_and_resumed_pretraining_equals_uninterrupted(videos, pretrained, tmp_path, monkeypatch):
    flags = pretraining_arguments(videos, tmp_path, save_steps=1, resume="auto")
    killed_at(5, monkeypatch, pretrain_main, flags)
    assert max(tmp_path.glob("checkpoint-*")).name == "checkpoint-00000004.pth"
    pretrain_main(flags)
    assert_same_run(tmp_path, pretrained, 6)
    assert [r["val_loss"] for r in log(tmp_path)] == [r["val_loss"] for r in log(pretrained)]


def test_two_processes_equal_one(videos, tmp_path):
    pretrain_main(pretraining_arguments(videos, tmp_path / "one", batch_size=6))
    two = pretraining_arguments(videos, tmp_path / "two", batch_size=3)
    preloaded.run_as_two(["-m", "pretrain", *two], ENVIRONMENT)
    one, two = (load_checkpoint(tmp_path / name / "encoder.pth") for name in ("one", "two"))
    for name, tensor in one["model"].items():
        torch.testing.assert_close(tensor, two["model"][name], rtol=1e-4, atol=1e-5, msg=name)
    assert [r["short_videos"] for name in ("one", "two") for r in log(tmp_path / name)] == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["sheet.png", "clips.gif", "clips.mp4"])
def test_pictures_of_reconstructions(videos, pretrained, tmp_path, name):
    checkpoint = str(pretrained / "checkpoint-00000006.pth")
    visualize.main(["--checkpoint", checkpoint, "--videos", str(videos), "--output", str(tmp_path / name), "--count=2"])
    if name == "clips.mp4":
        with open_video(tmp_path / name) as film:
            assert film.read([0, film.num_frames - 1], 3).shape == (2, 6 * 68, 6 * 140, 3) and film.num_frames == 4
        return
    picture = Image.open(tmp_path / name)
    assert picture.size == tuple(6 * side for side in ((140, 284) if name == "sheet.png" else (140, 68)))
    assert getattr(picture, "n_frames", 1) == (1 if name == "sheet.png" else 4)
