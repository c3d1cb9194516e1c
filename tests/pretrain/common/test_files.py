"""Reading and writing checkpoint files: atomic, explained, and without running what is in them."""

import argparse
import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch
from parity import REPO

from pretrain.common.files import check_output_path, load_checkpoint, save_atomically, save_json, save_weights


def weights(path):
    content = load_checkpoint(path)
    return content["model"] if path.suffix == ".pth" else content


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zip_format", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path, zip_format):
    path, marker = tmp_path / "evil.pth", tmp_path / "marker"
    torch.save(
        {"model": {"w": torch.ones(1)}, "args": Malicious(marker)}, path, _use_new_zipfile_serialization=zip_format
    )
    with pytest.raises(ValueError, match="cannot be read safely"):
        load_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file is harmless, so the test shows nothing"


def test_raw_pickle_is_not_run_under_any_name(tmp_path):
    marker = tmp_path / "marker"
    for name, message in (("evil.pth", "cannot be read safely"), ("evil.pkl", "can run any code"), ("x", "safely")):
        (tmp_path / name).write_bytes(pickle.dumps(Malicious(marker)))
        with pytest.raises(ValueError, match=message):
            load_checkpoint(tmp_path / name)
    assert not marker.exists()


def test_namespace_is_read(tmp_path):
    save_atomically({"args": argparse.Namespace(model="m")}, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth")["args"].model == "m"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_round_trip(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = {"a": torch.randn(3, 4), "b": torch.randn(4, 3).T, "c": torch.zeros(2, dtype=torch.bfloat16)}
    save_weights(state, path, {"note": "text"})
    read = weights(path)
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype
    assert os.listdir(tmp_path) == [path.name]


def test_both_formats_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    for name in ("a.pth", "a.safetensors"):
        save_weights({"w": torch.ones(1)}, tmp_path / name)
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_replacing_a_file_that_is_being_read(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save_weights({"w": torch.arange(1000.0)}, path)
    save_weights(weights(path), path)
    assert torch.equal(weights(path)["w"], torch.arange(1000.0))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save_weights({"w": torch.randn(1000)}, path)
    for fraction in (0.3, 0.99):
        short = tmp_path / f"short{suffix}"
        short.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
        with pytest.raises(ValueError, match="cannot be read safely: it is damaged"):
            load_checkpoint(short)


def test_tensors_stay_on_disk(tmp_path):
    """A memory-mapped tensor changes with the bytes of its file."""
    for name in ("a.pth", "a.safetensors"):
        path = tmp_path / name
        save_weights({"w": torch.full((4096,), 7.0)}, path)
        tensor = weights(path)["w"]
        needle = torch.full((4096,), 7.0).numpy().tobytes()
        offset = path.read_bytes().index(needle)
        with open(path, "r+b") as f:
            f.seek(offset)
            f.write(torch.full((4096,), 9.0).numpy().tobytes())
        assert (tensor == 9).all(), name


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.pth"
    path.write_text("old")
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save_atomically({"w": lambda: None}, path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["w.pth"]


KILLED_WHILE_SAVING = """
import os, signal, sys, torch
torch.save = lambda data, f: (f.write(b"half"), f.flush(), os.kill(os.getpid(), signal.SIGKILL))
from pretrain.common.files import save_atomically
save_atomically({}, sys.argv[1])
"""


def test_the_next_save_replaces_what_a_killed_one_left(tmp_path):
    path = tmp_path / "w.pth"
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, path], cwd=REPO)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old" and len(os.listdir(tmp_path)) == 2
    save_atomically({"w": 1}, path)
    assert load_checkpoint(path) == {"w": 1} and os.listdir(tmp_path) == ["w.pth"]


def test_leftovers_of_earlier_versions_go_once_they_are_older_than_this_process(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "run"
    old, new = folder / ".config-a1b2c3d4", folder / ".config-e5f6a7b8"
    for path in (old, new):
        path.mkdir(parents=True)
        (path / "config.yaml").touch()
    link, kept = folder / ".config-linked_0", folder / ".config-backup-of-mine"
    link.symlink_to(outside)
    kept.touch()
    for path in (old, link, kept, outside):
        os.utime(path, (0, 0), follow_symlinks=False)
    save_json({}, folder / "a.json")
    assert {path.name for path in folder.iterdir()} == {"a.json", new.name, kept.name}
    assert outside.is_dir()


def test_output_path(tmp_path):
    check_output_path(tmp_path / "new.pth")
    (tmp_path / "old.pth").touch()
    check_output_path(tmp_path / "old.pth", force=True)
    (tmp_path / "folder.pth").mkdir()
    for name, error, message in (
        ("new.ckpt", ValueError, "must end in .pth or .safetensors, got '.ckpt'"),
        ("old.pth", FileExistsError, "--force"),
        ("folder.pth", IsADirectoryError, "is a directory"),
        ("nowhere/new.pth", NotADirectoryError, "there is no directory"),
        ("old.pth/new.pth", NotADirectoryError, "there is no directory"),
    ):
        with pytest.raises(error, match=message):
            check_output_path(tmp_path / name)
