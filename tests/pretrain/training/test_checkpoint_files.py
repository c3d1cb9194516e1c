"""Checkpoints that cannot be read are set aside, as often as it happens."""

import pytest

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
