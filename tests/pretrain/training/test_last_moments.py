"""What a run that is killed, or diverges, around its last checkpoint leaves, and what resuming it still does."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain import finetune, linprobe
from pretrain.__main__ import main as pretrain_main
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, save_atomically
from pretrain.training import classification, finetuning, pretraining, state
from pretrain.training.state import exported_step

COMMANDS = {"pretrain": pretrain_main, "finetune": finetune.main, "linprobe": linprobe.main}
EXPORTS = {
    "pretrain": ["encoder.pth"],
    "finetune": ["classifier.pth", "classifier_ema.pth"],
    "linprobe": ["classifier.pth"],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("ant", "bee"):
            (root / split / kind).mkdir(parents=True)
            for i in range(2):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / kind / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def trunk(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trunk")
    pretrain_main(flags("pretrain", images, folder, epochs=1))
    return folder / "encoder.pth"


def flags(command, images, output_dir, **overrides):
    model = "convmae_convvit_tiny_patch8_32" if command == "pretrain" else "convvit_tiny_patch8_32"
    values = dict(model=model, data_path=images, output_dir=output_dir, batch_size=2, epochs=2, warmup_epochs=1)
    values |= dict(num_workers=0, device="cpu", lr=1e-3) | ({"model_ema": 0.9} if command == "finetune" else {})
    return [part for name, value in (values | overrides).items() for part in (f"--{name}", str(value))]


class Killed(BaseException):
    """Nothing catches it."""


def killed_at(step, write):
    """`write`, which is killed when it comes to the checkpoint of a step."""

    def wrapped(*args):
        if args[-1]["step"] == step:
            raise Killed
        return write(*args)

    return wrapped


def start(command, trunk):
    return {} if command == "pretrain" else {"init_weights": trunk}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("limit", [{}, {"max_steps": 3}])
def test_killed_between_the_last_checkpoint_and_the_export(
    command, limit, images, trunk, tmp_path, monkeypatch, caplog
):
    run, last = COMMANDS[command], limit.get("max_steps", 4)
    run(flags(command, images, tmp_path / "whole", **start(command, trunk), **limit))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pretraining, "export_encoder", killed_at(last, pretraining.export_encoder))
        for part in (classification.Results, finetuning.WeightAverage):
            patch.setattr(part, "export", killed_at(last, part.export))
        run(flags(command, images, tmp_path / "killed", **start(command, trunk), **limit))
    assert [exported_step(tmp_path / "killed" / name) for name in EXPORTS[command]] == [2] * len(EXPORTS[command])
    caplog.set_level(logging.INFO)
    run(flags(command, images, tmp_path / "killed", resume="auto", **limit))
    assert (
        "Nothing is left to train" in caplog.text and f"{' and '.join(EXPORTS[command])} was still due" in caplog.text
    )
    for name in EXPORTS[command]:
        whole, resumed = (load_checkpoint(tmp_path / folder / name) for folder in ("whole", "killed"))
        assert resumed["step"] == whole["step"] == last
        assert all(torch.equal(resumed["model"][key], tensor) for key, tensor in whole["model"].items())
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").iterdir()}
    caplog.clear()
    run(flags(command, images, tmp_path / "killed", resume="auto", **limit))
    assert "Nothing is left to train" in caplog.text and "Nothing else is due" in caplog.text
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").iterdir()} == before


def test_weights_that_are_not_finite_never_replace_good_files(images, tmp_path, monkeypatch):
    run = flags("pretrain", images, tmp_path, keep_checkpoints=1)
    pretrain_main([*run, "--max_steps", "2"])
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pth")}
    monkeypatch.setattr(state, "load_unfilled", diverged(load_checkpoint))
    with pytest.raises(
        SystemExit, match=r"error: There is NaN in (model|optimizer)\..* after step 4, so no checkpoint"
    ):
        pretrain_main([*run, "--resume", "auto"])
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pth")} == before


def diverged(load):
    """As if the file had been read before its contents were checked."""

    def wrapped(path):
        content = load(path)
        if "optimizer" in content:
            content["optimizer"]["state"][0]["exp_avg_sq"].fill_(float("nan"))
        return content

    return wrapped


@pytest.mark.parametrize("part", ["optimizer", "model"])
def test_a_run_with_nan_is_not_resumed(images, tmp_path, part):
    pretrain_main(flags("pretrain", images, tmp_path, max_steps=2))
    path = tmp_path / "checkpoint-00000002.pth"
    content = load_checkpoint(path)
    tensor = next(t for t in content["model"].values()) if part == "model" else content[part]["state"][0]["exp_avg_sq"]
    tensor.view(-1)[-1] = float("nan")
    save_atomically(content, path)
    with pytest.raises(SystemExit, match=rf"checkpoint-00000002\.pth is not read: it holds NaN in {part}\."):
        pretrain_main(flags("pretrain", images, tmp_path, resume="auto"))
    with pytest.raises(UserError, match="it holds NaN"):
        load_checkpoint(path)


def test_auto_passes_over_a_damaged_checkpoint(images, tmp_path, caplog):
    """It goes on from the one before, ends as the whole run did, and puts the damaged file out of the way."""
    caplog.set_level(logging.INFO)
    run = flags("pretrain", images, tmp_path, save_steps=1, max_steps=3)
    pretrain_main(run)
    files = [tmp_path / f"checkpoint-0000000{step}.pth" for step in (2, 3)]
    whole = load_checkpoint(files[1])["model"]
    files[1].write_bytes(files[1].read_bytes()[:-100])
    pretrain_main([*run, "--resume", "auto"])
    assert "00000003.pth cannot be read" in caplog.text and "Resumed" in caplog.text
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load_checkpoint(files[1])["model"].items())
    assert (tmp_path / "checkpoint-00000003.pth.damaged").exists()
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(SystemExit, match=r"None of the 2 checkpoints in .* can be read"):
        pretrain_main([*run, "--resume", "auto"])
