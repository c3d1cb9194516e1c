"""Whole pretraining runs with several targets: resuming, processes, the average, logs, and pixels alone as before."""

import json
import os

import numpy as np
import preloaded
import pytest
import runs
import timm
import torch
from PIL import Image
from runs import assert_same
from small_pretraining import SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretrain import visualize
from pretrain.__main__ import main as pretrain_main
from pretrain.checkpoints.recognition import recognise
from pretrain.common.distributed import World
from pretrain.common.files import load_checkpoint, save_atomically
from pretrain.models import MODELS, build_model
from pretrain.models.mixture import MixtureLoss, add_target_heads
from pretrain.training.precision import Precision
from pretrain.training.step import Stepper

PLAIN = ("model", "optimizer", "stepper", "rng", "totals", "epoch", "iteration")


@pytest.fixture(scope="module", autouse=True)
def small_models():
    """Small, and one thread, so that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, sizes in SMALL.items():
            patch.setitem(MODELS, name, sizes)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight training and two held-out pictures of coloured gradients, and the weights of a small ViT beside them."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(10):
        path = root / "set" / ("train" if i < 8 else "val") / f"{i}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        pixels = np.add.outer(np.arange(48), np.arange(48))[..., None] * generator.random(3)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    torch.manual_seed(0)
    save_atomically(timm.create_model("test_vit").state_dict(), root / "vit.pth")
    return root


def arguments(images, output_dir, *others, **overrides):
    flags = dict(model="fastconvmae_convvit_tiny_patch16", input_size=32, lr=1e-3, log_steps=2)
    return [*runs.arguments(images / "set", output_dir, **flags | overrides), *others]


def mixture(images):
    """Every kind of target, two of which and the mimicry have one teacher."""
    vit = f"test_vit@{images / 'vit.pth'}"
    return ["--targets", "rgb", "ema", f"vit={vit}", f"again={vit}", "--mimic", "ema", "--ema_decay", "0.5", "1"]


def checkpoint(output_dir, step):
    return load_checkpoint(output_dir / f"checkpoint-{step:08d}.pth")


def assert_same_state(a, b, *parts):
    assert_same(a, b, *PLAIN, *parts)


def log_of(output_dir):
    return [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole_run(images, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("whole")
    pretrain_main(arguments(images, output_dir, *mixture(images)))
    return output_dir


def test_losses_are_logged_apart(images, whole_run):
    names = ("rgb", "ema", "vit", "again", "mimic")
    first, last = log_of(whole_run)
    for split in ("train", "val"):
        for line in (first, last):
            parts = [line[f"{split}_loss_{name}"] for name in names]
            assert line[f"{split}_loss"] == pytest.approx(sum(parts), rel=1e-5)
        assert last[f"{split}_loss"] < first[f"{split}_loss"]
    events = EventAccumulator(str(whole_run))
    events.Reload()
    tags = events.Tags()["scalars"]
    for name in names:
        assert {f"train/loss_{name}", f"epoch/train_loss_{name}", f"epoch/val_loss_{name}"} <= set(tags)
    assert first["train_loss_vit"] != first["train_loss_again"]  # one teacher, but a head for each


def test_stopped_and_resumed_equals_uninterrupted(images, whole_run, tmp_path):
    pretrain_main(arguments(images, tmp_path, *mixture(images), max_steps=5, save_steps=1))
    stopped = checkpoint(tmp_path, 5)
    assert stopped["iteration"] == 1 and len(stopped["totals"]["parts"]) == 5
    pretrain_main(arguments(images, tmp_path, *mixture(images), resume="auto"))
    assert_same_state(checkpoint(tmp_path, 8), checkpoint(whole_run, 8), "ema_teacher")
    untimed = ("seconds", "peak_memory_mb")
    ours, theirs = (
        [{k: v for k, v in r.items() if k not in untimed} for r in log_of(d)] for d in (tmp_path, whole_run)
    )
    assert ours == theirs


def test_resumed_with_other_targets(images, whole_run):
    with pytest.raises(SystemExit, match="run that learns rgb ema vit again mimic, not rgb; resume with its --targets"):
        pretrain_main(arguments(images, whole_run, resume="auto"))


def test_pixels_alone_are_as_without_the_option(images, tmp_path):
    plain, named = tmp_path / "plain", tmp_path / "named"
    pretrain_main(arguments(images, plain, epochs=1))
    pretrain_main(arguments(images, named, "--targets", "rgb", epochs=1))
    assert_same_state(checkpoint(plain, 4), checkpoint(named, 4))
    assert checkpoint(plain, 4).keys() == checkpoint(named, 4).keys()
    assert not any("loss_" in name for line in log_of(named) for name in line)


@pytest.mark.parametrize("model", ["convmae", "convmaev2"])
def test_a_decay_of_zero_makes_the_teacher_the_student_of_the_last_step(images, tmp_path, model):
    name = f"{model}_convvit_tiny_patch16"
    flags = ["--targets", "rgb", "ema", "--ema_decay", "0"]
    pretrain_main(arguments(images, tmp_path, *flags, model=name, max_steps=3, epochs=1))
    state = checkpoint(tmp_path, 3)
    assert {"norm.weight", "pos_embed"} < state["ema_teacher"].keys() and "mask_token" not in state["ema_teacher"]
    assert all(torch.equal(tensor, state["model"][name]) for name, tensor in state["ema_teacher"].items())


def test_a_teacher_that_overflows_is_asked_again_in_a_higher_precision():
    class Overflowing(torch.nn.Module):
        def forward(self, imgs, grid_size):
            features = torch.ones(len(imgs), 4, 8)
            return features * torch.inf if torch.is_autocast_enabled("cpu") else features

    model = build_model("convmae_convvit_tiny_patch16", img_size=32, decoder_num_heads=2)
    add_target_heads(model, {"rgb": None, "own": 8}, mimic_dim=None)
    loss = MixtureLoss(model, {"rgb": 1.0, "own": 1.0}, {"own": Overflowing()})
    cpu = torch.device("cpu")
    stepper = Stepper(loss, torch.optim.SGD(model.parameters(), lr=0.1), Precision("bf16", cpu, model), World())
    step = stepper.step([(torch.randn(2, 3, 32, 32), 0.75, torch.rand(2, 4))])
    assert step.loss is not None and len(step.parts) == 2 and str(stepper.precision) == "fp32"
    assert all(p.isfinite().all() for p in model.parameters())


def test_two_processes_equal_one(images, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ["--targets", "ema", "--mimic", f"v=test_vit@{images / 'vit.pth'}", "--ema_decay=0.5"]
    base = dict(model="convmaev2_convvit_tiny_patch16", epochs=1, max_steps=2)
    # Not forked from here: an earlier test may have started the threads of a backward pass on fake GPUs.
    preloaded.run_as_two(["tests/support/small_pretraining.py", *arguments(images, two, *flags, **base)], os.environ)
    pretrain_main(arguments(images, one, *flags, **base | dict(batch_size=4)))
    a, b = checkpoint(one, 2), checkpoint(two, 2)
    for part in ("model", "ema_teacher"):
        for name, tensor in a[part].items():
            if name.endswith("attn.qkv.bias"):  # attention is the same whatever is added to all keys
                continue
            torch.testing.assert_close(tensor, b[part][name], rtol=1e-4, atol=1e-5, msg=name)
    for name in ("train_loss_ema", "train_loss_mimic"):
        assert log_of(one)[0][name] == pytest.approx(log_of(two)[0][name], rel=1e-5)


def test_an_encoder_as_teacher_and_from_one_kind_of_run_to_another(images, whole_run, tmp_path):
    """The own encoder teaches; pixels' weights of a mixture start a plain run, and those of a plain run a mixture."""
    teacher = f"own={whole_run / 'encoder.pth'}"
    start = whole_run / "checkpoint-00000008.pth"
    pretrain_main(arguments(images, tmp_path / "own", "--targets", teacher, max_steps=1, init_weights=start))
    assert recognise(tmp_path / "own" / "encoder.pth").kind.name == "ConvMAE or FastConvMAE pretraining"
    state = checkpoint(tmp_path / "own", 1)["model"]
    assert not any(name.startswith(("decoder_pred", "decoder_norm", "decoder_blocks.1")) for name in state)
    pretrain_main(arguments(images, tmp_path / "plain", max_steps=1, init_weights=start, lr=1e-30))
    plain, whole = checkpoint(tmp_path / "plain", 1)["model"], checkpoint(whole_run, 8)["model"]
    assert plain.keys() < whole.keys() and torch.allclose(plain["decoder_pred.weight"], whole["decoder_pred.weight"])
    flags = ["--in_chans=1", "--targets", teacher]
    with pytest.raises(SystemExit, match=r"takes images of 3 channel\(s\), the model of 1; give an encoder"):
        pretrain_main(arguments(images, tmp_path / "grey", *flags))


def test_pictures_of_a_mixture(images, whole_run, tmp_path):
    assert (whole_run / "reconstructions" / "epoch-0002.png").exists()
    flags = ["--images", str(images / "set"), "--output", str(tmp_path / "grid.png")]
    visualize.main(["--checkpoint", str(whole_run / "checkpoint-00000008.pth"), *flags])
    pretrain_main(arguments(images, tmp_path, "--targets", "ema", max_steps=1))
    assert not (tmp_path / "reconstructions").exists()
    with pytest.raises(SystemExit, match="is of a run without the target rgb, so it reconstructs no images"):
        visualize.main(["--checkpoint", str(tmp_path / "checkpoint-00000001.pth"), *flags])
