"""`python -m pretrain` in several processes."""

import shutil

import preloaded
import pytest
import torch
from pretraining_runs import arguments, checkpoint, losses
from runs import ENVIRONMENT

from pretrain.__main__ import main as pretrain_main
from pretrain.common.distributed import World
from pretrain.training.args import parse_args
from pretrain.training.pretraining import pretraining_parts
from pretrain.training.run import train


class TwoProcesses(World):
    """The first of two processes, of which the other one found nothing."""

    def gather(self, value):
        return [value, None]


def train_first_of_two(flags):
    train(parse_args(flags), TwoProcesses(size=2), torch.device("cpu"), pretraining_parts)


def test_nodes_that_do_not_share_the_output_folder(images, whole_run):
    with pytest.raises(
        ValueError, match=r"different checkpoints \(.*-00000010\.pth, none\): --output_dir .* all nodes"
    ):
        train_first_of_two(arguments(images, whole_run, resume="auto"))


def test_fewer_held_out_images_than_processes(images, tmp_path):
    for name in ("train/a.png", "train/b.png", "train/c.png", "train/d.png", "val/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((images / "val" / "10.png").read_bytes())
    with pytest.raises(ValueError, match=r"val holds 1 image\(s\), fewer than the 2 processes"):
        train_first_of_two(arguments(tmp_path, tmp_path / "out"))


def test_two_processes_equal_one(images, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    images = shutil.copytree(images, tmp_path / "images")
    (images / "train" / "04.png").write_text("not an image")
    pretrain_main(arguments(images, one, batch_size=4, epochs=1, max_corrupt=0.1))
    command = ["-m", "pretrain", *arguments(images, two, epochs=1, max_corrupt=0.1)]
    preloaded.run_as_two(command, ENVIRONMENT)
    a, b = checkpoint(one, 2), checkpoint(two, 2)
    assert a["corrupt"] == b["corrupt"] == [4]
    for name in a["model"]:
        torch.testing.assert_close(a["model"][name], b["model"][name], rtol=1e-4, atol=1e-5, msg=name)
    assert losses(one)[0] == pytest.approx(losses(two)[0], rel=1e-5)
    again = preloaded.run_as_two([*command, "--resume=auto"], ENVIRONMENT)
    assert "".join(done.stdout + done.stderr for done in again).count("Nothing is left to train") == 1
