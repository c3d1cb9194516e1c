"""Checkpoints that cannot be read are set aside, as often as it happens."""

import pytest
import torch

from pretrain.training.checkpoint_files import Checkpoints


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_checkpoint_of_a_step_may_be_damaged_twice(tmp_path, kind):
    path = tmp_path / ("checkpoint-00000002" if kind == "folder" else "checkpoint-00000002.pth")
    for content in ("first", "second"):
        if kind == "folder":
            path.mkdir()
        (path / "state.pth" if kind == "folder" else path).write_text(content)
        checkpoints = Checkpoints(tmp_path, keep=1)
        checkpoints.damaged = [path]
        checkpoints.set_damaged_aside()
    aside = path.with_name(f"{path.name}.damaged")
    assert [p.name for p in tmp_path.iterdir()] == [aside.name]
    assert (aside / "state.pth" if kind == "folder" else aside).read_text() == "second"


def test_a_damaged_folder_takes_the_place_of_a_damaged_file(tmp_path):
    path, aside = tmp_path / "checkpoint-00000002", tmp_path / "checkpoint-00000002.damaged"
    path.mkdir()
    aside.touch()
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.damaged = [path]
    checkpoints.set_damaged_aside()
    assert aside.is_dir() and not path.exists()


def test_a_link_to_nowhere_is_passed_over(tmp_path):
    torch.save({"step": 2}, tmp_path / "checkpoint-00000002.pth")
    (tmp_path / "checkpoint-00000004.pth").symlink_to(tmp_path / "gone.pth")
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.find("auto") == tmp_path / "checkpoint-00000002.pth"
    checkpoints.set_damaged_aside()
    assert (tmp_path / "checkpoint-00000004.pth.damaged").is_symlink()
