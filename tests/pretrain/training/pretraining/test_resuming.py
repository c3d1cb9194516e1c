"""Runs of `python -m pretrain` that go on where they stopped, and those that start from other weights."""

import signal
import tarfile
import time

import preloaded
import pytest
import torch
from pretraining_runs import arguments, assert_same_state, checkpoint, losses
from runs import ENVIRONMENT

from pretrain.__main__ import main as pretrain_main


def test_killed_and_resumed_equals_uninterrupted(images, whole_run, tmp_path):
    command = ["-m", "pretrain", *arguments(images, tmp_path, save_steps=1, keep_checkpoints=1)]
    process = preloaded.start(command, ENVIRONMENT)
    while not any(int(p.stem[-8:]) >= 3 for p in tmp_path.glob("checkpoint-*.pth")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    with open(tmp_path / "log.jsonl", "a") as f:
        f.write('{"epoch": 0, "train_lo')  # a line that the kill cut short
    pretrain_main(arguments(images, tmp_path, save_steps=1, keep_checkpoints=1, resume="auto"))
    assert_same_state(checkpoint(tmp_path, 10), checkpoint(whole_run, 10))
    assert losses(tmp_path) == losses(whole_run)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000010.pth"]


def test_stopped_after_some_steps_and_resumed(images, whole_run, tmp_path):
    pretrain_main(arguments(images, tmp_path, max_steps=7))
    assert checkpoint(tmp_path, 7)["iteration"] == 2
    pretrain_main(arguments(images, tmp_path, resume="auto"))
    assert_same_state(checkpoint(tmp_path, 10), checkpoint(whole_run, 10))


def test_resumed_with_a_larger_batch(images, tmp_path):
    """Fewer steps an epoch, yet what is saved later stays the newest."""
    pretrain_main(arguments(images, tmp_path, epochs=1, keep_checkpoints=1))
    pretrain_main(arguments(images, tmp_path, epochs=2, keep_checkpoints=1, batch_size=4, resume="auto"))
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000007.pth"]
    assert checkpoint(tmp_path, 7)["epoch"] == 2
    assert {s["step"].item() for s in checkpoint(tmp_path, 7)["optimizer"]["state"].values()} == {7}


def test_the_middle_of_an_epoch_belongs_to_its_effective_batch(images, whole_run, tmp_path):
    pretrain_main(arguments(images, tmp_path, max_steps=2))
    with pytest.raises(SystemExit, match="2 steps of effective batch 2, which are other images than as many of 4"):
        pretrain_main(arguments(images, tmp_path, batch_size=4, resume="auto"))
    pretrain_main(arguments(images, tmp_path, batch_size=1, accum_iter=2, resume="auto", max_steps=3))
    assert checkpoint(tmp_path, 3)["iteration"] == 3


def test_tar_files_of_which_a_few_are_read_at_a_time(images, tmp_path):
    """A run on them goes on in the middle of an epoch as if it had not stopped, and only in the same order."""
    data = tmp_path / "data"
    data.mkdir()
    for i, start in enumerate(range(0, 10, 4)):
        with tarfile.open(data / f"part-{i:06d}.tar", "w") as tar:
            for path in sorted((images / "train").iterdir())[start : start + 4]:
                tar.add(path, path.name)
    pretrain_main(arguments(data, tmp_path / "whole", shard_window=2))
    pretrain_main(arguments(data, tmp_path / "stopped", shard_window=2, max_steps=7))
    with pytest.raises(SystemExit, match=r"with --shard_window 2, and with 0 its images come in another order; resume"):
        pretrain_main(arguments(data, tmp_path / "stopped", resume="auto"))
    pretrain_main(arguments(data, tmp_path / "stopped", shard_window=2, resume="auto"))
    assert_same_state(checkpoint(tmp_path / "stopped", 10), checkpoint(tmp_path / "whole", 10))


def test_init_weights_starts_a_new_run(images, whole_run, tmp_path, address_of):
    start = address_of(whole_run / "encoder.pth")
    pretrain_main(arguments(images, tmp_path, init_weights=start, epochs=1, blr=1e-30))
    started, trained = checkpoint(tmp_path, 5)["model"], checkpoint(whole_run, 10)["model"]
    assert torch.allclose(started["blocks3.0.mlp.fc1.weight"], trained["blocks3.0.mlp.fc1.weight"])
    assert not torch.allclose(started["decoder_pred.weight"], trained["decoder_pred.weight"])


def test_init_weights_are_used_until_there_is_a_checkpoint(images, whole_run, tmp_path):
    flags = dict(init_weights=whole_run / "encoder.pth", blr=1e-3, resume="auto")
    pretrain_main(arguments(images, tmp_path / "stopped", max_steps=5, **flags))
    pretrain_main(arguments(images, tmp_path / "stopped", **flags))
    pretrain_main(arguments(images, tmp_path / "whole", **flags))
    assert_same_state(checkpoint(tmp_path / "stopped", 10), checkpoint(tmp_path / "whole", 10))
