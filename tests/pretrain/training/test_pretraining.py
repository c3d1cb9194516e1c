"""Whole runs of `python -m pretrain`: resuming, accumulation, processes, files, and what a user's mistake says."""

import json
import os
import shutil
import signal
import tarfile
import time

import numpy as np
import preloaded
import pytest
import torch
from parity import REPO
from PIL import Image

from pretrain import visualize
from pretrain.__main__ import main as pretrain_main
from pretrain.common.distributed import World
from pretrain.common.files import load_checkpoint
from pretrain.training.args import parse_args
from pretrain.training.checkpoint_files import Checkpoints
from pretrain.training.pretraining import pretraining_parts
from pretrain.training.run import train

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Ten training and two held-out pictures of coloured gradients."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(12):
        path = root / ("train" if i < 10 else "val") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.add.outer(np.arange(48), np.arange(48))[..., None] * generator.random(3)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def arguments(images, output_dir, **overrides):
    flags = dict(
        model="convmae_convvit_tiny_patch16",
        data_path=images,
        output_dir=output_dir,
        input_size=32,
        batch_size=2,
        epochs=2,
        warmup_epochs=1,
        blr=1e-2,
        num_workers=0,
        device="cpu",
        log_steps=2,
    )
    return [part for name, value in (flags | overrides).items() for part in (f"--{name}", str(value))]


def checkpoint(output_dir, step):
    return load_checkpoint(output_dir / f"checkpoint-{step:08d}.pth")


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in leaves(tree[key])]
    return [leaf for item in tree for leaf in leaves(item)] if isinstance(tree, list | tuple) else [tree]


def assert_same_state(a, b):
    for part in ("model", "optimizer", "stepper", "rng", "totals", "epoch", "iteration"):
        for x, y in zip(leaves([a[part]]), leaves([b[part]]), strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, part


def losses(output_dir):
    return [(r["train_loss"], r["val_loss"]) for r in map(json.loads, open(output_dir / "log.jsonl"))]


@pytest.fixture(scope="module")
def whole_run(images, tmp_path_factory):
    """An uninterrupted run of two epochs of five steps."""
    output_dir = tmp_path_factory.mktemp("whole")
    pretrain_main(arguments(images, output_dir))
    return output_dir


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


def test_rotation_never_removes_the_file_just_written(tmp_path):
    state = {"model": {}, "args": {}}
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, 9)
    assert checkpoints.save(state, 5).exists()
    assert checkpoints.files() == [tmp_path / "checkpoint-00000005.pth"]


def test_last_epochs_are_saved_whenever_training_stops(images, tmp_path):
    pretrain_main(arguments(images, tmp_path, epochs=4, save_epochs=2, max_steps=15, resume="auto"))
    assert [checkpoint(tmp_path, step)["epoch"] for step in (10, 15)] == [2, 3]


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


def test_accumulation_uses_the_last_partial_group(images, tmp_path):
    pretrain_main(arguments(images, tmp_path, batch_size=2, accum_iter=3, epochs=1))
    updates = {s["step"].item() for s in checkpoint(tmp_path, 2)["optimizer"]["state"].values()}
    assert updates == {2}  # 5 micro-batches: 3 and 2


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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(data_path="nowhere"), "There is no data at nowhere"),
        (dict(model="vit"), "There is no model 'vit'; choose one of convmae_convvit_tiny_patch8"),
        (dict(mask_ratio=1.0), "mask_ratio must be at least 0 and below 1, got 1.0"),
        (dict(model="fastconvmae_convvit_tiny_patch16", mask_ratio=0.6), "needs mask_ratio 0.75, got 0.6"),
        (dict(batch_size=16), "10 images give no optimizer step"),
        (dict(input_size=40), "40x40 is not divisible by the total stride 16"),
        (dict(device="cuda"), "there is no usable GPU"),
        (dict(resume="missing.pth"), "missing.pth does not exist"),
        (dict(resume="b.pth", init_weights="a.pth"), "give only one of them"),
        (dict(max_steps=-1), "--max_steps must be at least 0, got -1"),
        (dict(save_steps=-1), "--save_steps must be at least 0, got -1"),
        (dict(num_workers=-1), "--num_workers must be at least 0, got -1"),
        (dict(seed=-1), r"--seed must be at least 0 and below 2\*\*31, got -1"),
        (dict(seed=2**31), r"--seed must be at least 0 and below 2\*\*31, got 2147483648"),
        (dict(blr=1e300), r"--blr must be at most 1e\+06, got 1e\+300"),
        (dict(weight_decay=1e300), r"--weight_decay must be at most 1e\+06, got 1e\+300"),
        (dict(max_corrupt=1.5), "--max_corrupt must be at least 0 and at most 1, got 1.5"),
        (dict(warmup_epochs=-1), "--warmup_epochs must be at least 0, got -1.0"),
        (dict(weight_decay="nan"), "--weight_decay must be at least 0, got nan"),
        (dict(min_lr=-1e-3), "--min_lr must be at least 0, got -0.001"),
        (dict(clip_grad=-1), "--clip_grad must be at least 0, got -1.0"),
        (dict(lr=0), "--lr must be above 0, got 0.0"),
        (dict(blr="inf"), "--blr must be above 0, got inf"),
        (dict(shard_window=-1), "--shard_window must be at least 0, got -1"),
        (dict(picture_epochs=0), "--picture_epochs must be at least 1, got 0"),
    ],
)
def test_mistakes_get_one_clear_message(images, tmp_path, overrides, message):
    if overrides.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match=message) as e:
        pretrain_main(arguments(images, tmp_path / "out", **overrides))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


def test_mistaken_checkpoints(images, whole_run, tmp_path):
    def fails(message, **overrides):
        with pytest.raises(SystemExit, match=message):
            pretrain_main(arguments(images, tmp_path / "out", **overrides))

    good = whole_run / "checkpoint-00000010.pth"
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(good.read_bytes()[:100_000])
    fails("truncated.pth cannot be read safely: it is damaged", resume=truncated)
    fails("truncated.pth cannot be read safely: it is damaged", init_weights=truncated)
    other = "fastconvmae_convvit_small_patch16"
    fails("is of a run with --model convmae_convvit_tiny_patch16", resume=good, model=other)
    fails(r"does not hold this model's weights: \d+ of \d+ tensors fit", init_weights=good, model=other)
    fails("holds no state of a run", resume=whole_run / "encoder.pth")
    earlier = whole_run / "checkpoint-00000005.pth"
    with pytest.raises(SystemExit, match=r"is of step 5, but .* holds the later checkpoint-00000010\.pth; continue"):
        pretrain_main(arguments(images, whole_run, resume=earlier))
    with pytest.raises(SystemExit, match=r"already holds checkpoint-00000010\.pth; continue it with --resume auto"):
        pretrain_main(arguments(images, whole_run))
