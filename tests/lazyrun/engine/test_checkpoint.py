"""A run goes on from its newest checkpoint that can be read, whatever became of the others and of the tag."""

import os

import pytest
import torch
from fvcore.common.checkpoint import PeriodicCheckpointer
from torch import nn

from lazyrun.engine.checkpoint import RunCheckpointer, earlier_checkpoints, newest_intact, resumable_files
from pretrain.common.errors import UserError


class Trainer(nn.Module):
    def state_dict(self, *args, **kwargs) -> dict:
        return {"iteration": 0}


@pytest.fixture
def run(tmp_path):
    """A folder with checkpoints of iterations 1, 3 and 5, the last one tagged, and weights alone."""
    checkpointer = RunCheckpointer(nn.Linear(2, 2), str(tmp_path), trainer=Trainer())
    for i in (1, 3, 5):
        checkpointer.save(f"model_{i:07d}", iteration=i)
        os.utime(tmp_path / f"model_{i:07d}.pth", (i, i))
    checkpointer.save_weights("model_best", iteration=5)
    return tmp_path


def damage(file) -> None:
    """Flips one bit of a weight."""
    weight = torch.load(file, weights_only=True)["model"]["weight"].numpy().tobytes()
    content = bytearray(file.read_bytes())
    content[content.index(weight)] ^= 1
    file.write_bytes(content)


def test_the_tagged_one_comes_first(run):
    assert [f.name for f in resumable_files(run)] == ["model_0000005.pth", "model_0000003.pth", "model_0000001.pth"]
    (run / "last_checkpoint").write_text("model_0000001.pth\n")
    assert newest_intact(run).name == "model_0000001.pth"


@pytest.mark.parametrize("tag", [None, b"", b"\xff\x00\xfe", b"model_0000009.pth", b"../../etc/passwd"])
def test_a_tag_that_says_nothing(run, tag):
    (run / "last_checkpoint").unlink() if tag is None else (run / "last_checkpoint").write_bytes(tag)
    checkpointer = RunCheckpointer(nn.Linear(2, 2), str(run))
    assert checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == str(run / "model_0000005.pth")


def test_what_was_saved_is_not_read_again_for_its_name(run, monkeypatch):
    checkpointer = RunCheckpointer(nn.Linear(2, 2), str(run))
    monkeypatch.setattr("lazyrun.engine.checkpoint.load_checkpoint", lambda file: pytest.fail(f"{file} is read"))
    periodic = PeriodicCheckpointer(checkpointer, period=2, max_to_keep=2)
    for iteration in range(6, 12):
        periodic.step(iteration)
    names = sorted(file.name for file in run.glob("model_*[0-9].pth"))
    assert names[-2:] == ["model_0000009.pth", "model_0000011.pth"] and "model_0000007.pth" not in names


def test_damaged_files_are_passed_over(run, caplog):
    (run / "model_0000005.pth").write_bytes((run / "model_0000005.pth").read_bytes()[:-100])
    damage(run / "model_0000003.pth")
    assert newest_intact(run).name == "model_0000001.pth"
    assert "model_0000005.pth" in caplog.text and "model_0000003.pth" in caplog.text
    torch.save([1, 2], run / "model_0000007.pth")
    (run / "last_checkpoint").write_text("model_0000007.pth")
    assert newest_intact(run).name == "model_0000001.pth" and "model_0000007.pth is no checkpoint" in caplog.text


def test_a_link_to_nowhere_is_passed_over(run, caplog):
    (run / "model_0000007.pth").symlink_to(run / "gone.pth")
    (run / "last_checkpoint").write_text("model_0000007.pth")
    assert newest_intact(run).name == "model_0000005.pth" and "model_0000007.pth does not exist" in caplog.text


def test_nothing_left_to_resume_from(run):
    for file in run.glob("model_0*.pth"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"None of the 3 checkpoints in .* can be resumed from"):
        newest_intact(run)


def test_an_empty_folder_is_no_run(tmp_path):
    torch.save({}, tmp_path / "model_best.pth")
    assert newest_intact(tmp_path) is None and not RunCheckpointer(nn.Linear(1, 1), str(tmp_path)).has_checkpoint()


def test_nothing_that_is_not_finite_is_written(run):
    model = nn.BatchNorm1d(2)
    model.running_var[0] = float("nan")
    checkpointer = RunCheckpointer(model, str(run), trainer=Trainer())
    for save in (checkpointer.save, checkpointer.save_weights):
        with pytest.raises(UserError, match=r"model_0000007\.pth is not written: there are NaN in model\.running_var"):
            save("model_0000007", iteration=7)
    assert not (run / "model_0000007.pth").exists() and newest_intact(run).name == "model_0000005.pth"


def test_files_that_are_written_anew_do_not_count_as_kept(run):
    """A run that went past a damaged checkpoint lost an older one for it."""
    assert earlier_checkpoints(run, 4) == [str(run / f"model_{i:07d}.pth") for i in (1, 3)]
    assert earlier_checkpoints(run, 3) == earlier_checkpoints(run, 2) == [str(run / "model_0000001.pth")]
