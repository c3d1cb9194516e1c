"""Runs that share out their weights: equal to others, stopped and resumed, and what their folders hold."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from parity import REPO
from PIL import Image
from runs import ENVIRONMENT, assert_same, log
from sharded import needs_sharding

from pretrain import finetune, visualize
from pretrain.__main__ import main as pretrain_main
from pretrain.common.files import load_checkpoint
from pretrain.training.checkpoint_files import Checkpoints

pytestmark = needs_sharding

PRETRAIN = dict(model="convmae_convvit_tiny_patch8_32", epochs=2, blr=1e-2, save_epochs=2)
FINETUNE = dict(model="convvit_tiny_patch8_32", epochs=1, lr=1e-3, layer_decay=0.7, accum_iter=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twelve training and five held-out pictures in two classes: three steps of four, and uneven shares."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(17):
        path = root / ("train" if i < 12 else "val") / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.add.outer(np.arange(32), np.arange(32))[..., None] * generator.random(3)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def arguments(images, output_dir, *switches, **flags):
    common = dict(
        data_path=images, output_dir=output_dir, batch_size=2, warmup_epochs=1, num_workers=0, device="cpu", log_steps=2
    )
    return [*switches, *(f"--{name}={value}" for name, value in (common | flags).items())]


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """A folder of runs. Those of one process have `one` in their names; the others had two processes."""
    root = tmp_path_factory.mktemp("runs")

    def pretraining(name, *switches, **flags):
        return arguments(images, root / name, *switches, **PRETRAIN | flags)

    def job(*argv, command="pretrain", **options):
        return {"command": command, "argv": argv, **options}

    def finetuning(name, *switches):
        return job(*arguments(images, root / name, *switches, **FINETUNE), command="finetune")

    pretrain_main(pretraining("one", batch_size=4))
    pretrain_main(pretraining("one_fsdp_stopped", "--fsdp", batch_size=4, max_steps=2))
    pretrain_main(pretraining("one_stopped", batch_size=4, max_steps=2))
    jobs = [
        job(*pretraining("fsdp", "--fsdp", "--act_checkpoint", keep_checkpoints=1, save_epochs=1)),
        job(*pretraining("stopped", "--fsdp", max_steps=4)),
        job(*pretraining("resumed", "--fsdp", resume="auto"), copy=[str(root / "stopped"), str(root / "resumed")]),
        *(
            job(*pretraining(new, *switches, resume="auto"), copy=[str(root / old), str(root / new)])
            for old, new, switches in (
                ("one_fsdp_stopped", "one_fsdp_then_fsdp", ["--fsdp"]),
                ("one_stopped", "one_then_fsdp", ["--fsdp"]),
                ("stopped", "fsdp_then_ddp", []),
            )
        ),
        *(
            job(*pretraining(name, *switches, amp="bf16", epochs=1, clip_grad=0.5), spoil=True)
            for name, switches in (("spoiled_ddp", []), ("spoiled_fsdp", ["--fsdp"]))
        ),
        finetuning("finetuned_ddp"),
        finetuning("finetuned_fsdp", "--fsdp"),
    ]
    (root / "jobs.json").write_text(json.dumps(jobs, default=str))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command += ["tests/support/fsdp_runs.py", str(root / "jobs.json")]
    result = subprocess.run(command, cwd=REPO, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    shutil.copytree(root / "stopped", root / "fsdp_then_one")
    pretrain_main(pretraining("fsdp_then_one", batch_size=4, resume="auto"))
    return root


def newest(folder):
    return load_checkpoint(Checkpoints(folder, keep=1).files()[0])


def moments(state):
    return {
        f"{index}.{name}": value
        for index, values in state["optimizer"]["state"].items()
        for name, value in values.items()
    }


def without_keys(bias):
    """A key's bias moves all scores of a query alike: its gradient is rounding alone, which AdamW makes steps of."""
    query, _, value = bias.chunk(3)
    return torch.cat([query, value])


def assert_close(a, b, tolerance=1e-5):
    """Weights, and moments within a share of the largest of each tensor."""
    assert a["step"] == b["step"] and a["model"].keys() == b["model"].keys()
    for name, tensor in b["model"].items():
        ours, theirs = (without_keys(t) if name.endswith("qkv.bias") else t for t in (a["model"][name], tensor))
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance / 10, msg=name)
    ours, theirs = moments(a), moments(b)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() <= tolerance * tensor.abs().max(), name


def test_what_a_folder_holds(runs):
    names = {path.name for path in (runs / "fsdp").iterdir() if not path.name.startswith("events")}
    assert names == {"args.json", "log.jsonl", "encoder.pth", "checkpoint-00000006", "reconstructions"}
    shards = {f"shard-0000{i}-model-00001-of-00001.safetensors" for i in (1, 2)}
    assert {path.name for path in (runs / "fsdp" / "checkpoint-00000006").iterdir()} == {"state.pth", *shards}
    encoder = torch.load(runs / "fsdp" / "encoder.pth", weights_only=True)
    state = newest(runs / "fsdp")
    assert encoder["step"] == state["step"] == 6
    assert list(encoder["model"]) == list(load_checkpoint(runs / "one" / "encoder.pth")["model"])
    for name, tensor in encoder["model"].items():
        assert torch.equal(tensor, state["model"][name])


@pytest.mark.parametrize("name", ["fsdp", "one_fsdp_then_fsdp", "one_then_fsdp", "fsdp_then_ddp", "fsdp_then_one"])
def test_equals_one_process(runs, name):
    """However many processes took its steps, and whichever of them shared out the weights."""
    assert_close(newest(runs / name), newest(runs / "one"))
    for ours, theirs in zip(log(runs / name), log(runs / "one"), strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)


def test_stopped_and_resumed_equals_uninterrupted(runs):
    """Bit for bit; the uninterrupted run recomputed its activations besides."""
    a, b = newest(runs / "resumed"), newest(runs / "fsdp")
    assert_same(a, b, "model", "optimizer", "stepper", "rng", "totals", "epoch", "iteration")
    assert [(r["train_loss"], r["val_loss"]) for r in log(runs / "resumed")] == [
        (r["train_loss"], r["val_loss"]) for r in log(runs / "fsdp")
    ]


def test_a_loss_that_is_infinite_in_one_process_is_computed_again_by_all(runs):
    """In bfloat16, where other last bits of float32 are rounded to other numbers."""
    ours, theirs = newest(runs / "spoiled_fsdp"), newest(runs / "spoiled_ddp")
    assert ours["stepper"] == theirs["stepper"] and ours["stepper"]["precision"]["level"] == 1
    assert_close(ours, theirs, tolerance=1e-3)
    (a,), (b,) = log(runs / "spoiled_fsdp"), log(runs / "spoiled_ddp")
    assert a["skipped_steps"] == 0 and a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)


def test_finetuning_equals_that_without(runs):
    ours, theirs = runs / "finetuned_fsdp", runs / "finetuned_ddp"
    assert_close(newest(ours), newest(theirs))
    a, b = (json.loads((folder / "finetune.json").read_text()) for folder in (ours, theirs))
    assert a["acc1"] == b["acc1"] and a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    best = load_checkpoint(ours / "classifier_best.pth")["model"]
    for name, tensor in newest(ours)["model"].items():
        assert torch.equal(best[name], tensor)


def test_other_commands_take_a_folder(runs, images, tmp_path):
    picture = tmp_path / "grid.png"
    visualize.main([f"--checkpoint={runs}/fsdp/checkpoint-00000006", f"--images={images}", f"--output={picture}"])
    assert Image.open(picture).size[0] > 4 * 32


def test_a_damaged_folder_is_passed_over(runs, images, tmp_path):
    run = shutil.copytree(runs / "resumed", tmp_path / "run")
    folder = run / "checkpoint-00000006"
    shard = folder / "shard-00002-model-00001-of-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    flags = PRETRAIN | dict(batch_size=4, resume=folder)
    with pytest.raises(SystemExit, match=r"checkpoint-00000006 cannot be read: shard-00002.* is damaged, as its size"):
        pretrain_main(arguments(images, run, **flags))
    shard.unlink()
    with pytest.raises(SystemExit, match=r"shard-00002-model-00001-of-00001\.safetensors is missing"):
        pretrain_main(arguments(images, run, **flags))
    (folder / "state.pth").unlink()
    with pytest.raises(SystemExit, match=r"has no state\.pth, so it holds no state of a run"):
        pretrain_main(arguments(images, run, **flags))
    pretrain_main(arguments(images, run, "--fsdp", **flags | dict(resume="auto", epochs=2)))
    assert {path.name for path in run.glob("checkpoint-*")} == {
        "checkpoint-00000004",
        "checkpoint-00000006",
        "checkpoint-00000006.damaged",
    }
    assert_close(newest(run), newest(runs / "one"))


@pytest.mark.parametrize(
    ("main", "flags", "message"),
    [
        (pretrain_main, PRETRAIN | dict(targets="ema"), "--fsdp does not go with the target ema"),
        (pretrain_main, PRETRAIN | dict(mimic="ema"), "--fsdp does not go with the target ema"),
        (finetune.main, FINETUNE | dict(model_ema=0.9), "--fsdp does not go with --model_ema"),
    ],
)
def test_what_it_does_not_go_with(images, tmp_path, main, flags, message):
    with pytest.raises(SystemExit, match=message):
        main(arguments(images, tmp_path, "--fsdp", **flags))
    with pytest.raises(SystemExit, match="--fsdp does not go with --compile"):
        main(arguments(images, tmp_path, "--fsdp", "--compile", **flags))
