"""`--probe`: training takes the same course with it, and the last figure is that of `python -m pretrain.knn`."""

import json
import shutil

import numpy as np
import preloaded
import pytest
import runs
import torch
from PIL import Image
from runs import ENVIRONMENT, assert_same

from pretrain import knn
from pretrain.__main__ import main as pretrain_main
from pretrain.checkpoints.classifier_weights import load_trunk
from pretrain.common.distributed import World
from pretrain.common.files import load_checkpoint
from pretrain.training.args import parse_args
from pretrain.training.neighbour_probe import NeighbourProbe
from pretrain.training.pretraining import pretraining_parts
from pretrain.training.run import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of stripes in much noise: some images are classified right, and some are not."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 11)):
        for period in (4, 6, 8):
            folder = root / split / f"stripes{period}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = 90 + 40 * (np.arange(32) % period < period // 2) + generator.normal(0, 120, (32, 32))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return root


def arguments(data, output_dir, **overrides):
    flags = dict(model="convmae_convvit_tiny_patch8_32", in_chans=1, batch_size=8, epochs=3, lr=1e-3, log_steps=9)
    return runs.arguments(data, output_dir, **flags | dict(save_steps=1, keep_checkpoints=9) | overrides)


def probed(data, output_dir, **overrides):
    return arguments(data, output_dir, **dict(probe=data, probe_epochs=2, probe_k=5) | overrides)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Three epochs of three steps."""
    output_dir = tmp_path_factory.mktemp("run")
    pretrain_main(probed(data, output_dir))
    return output_dir


def log(output_dir):
    """The lines of a log, without what differs between runs that are otherwise equal."""
    lines = [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "peak_memory_mb")} for line in lines]


def accuracies(output_dir):
    return {line["epoch"]: line["knn_acc1"] for line in log(output_dir) if "knn_acc1" in line}


def assert_same_checkpoint(a, b, step):
    a, b = (load_checkpoint(path / f"checkpoint-{step:08d}.pth") for path in (a, b))
    assert_same(a, b, "model", "optimizer", "stepper", "rng", "totals", "epoch", "iteration")


def test_measured_at_the_start_every_second_epoch_and_the_last(run):
    assert list(accuracies(run)) == [-1, 1, 2]
    assert log(run)[0].keys() == {"epoch", "knn_acc1", "knn_acc5"}
    assert [line["epoch"] for line in log(run)] == [-1, 0, 1, 2]


def test_tensorboard_has_the_same(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run))
    events.Reload()
    for name in ("knn_acc1", "knn_acc5"):
        found = {event.step - 1: event.value for event in events.Scalars(f"epoch/{name}")}
        assert found == pytest.approx({line["epoch"]: line[name] for line in log(run) if name in line})


@pytest.mark.parametrize("workers", [0, 1])
def test_training_is_the_same_without(data, run, tmp_path, workers):
    pretrain_main(arguments(data, tmp_path, num_workers=workers))
    for step in (1, 7, 9):  # the first step, the one after a measurement, the last
        assert_same_checkpoint(tmp_path, run, step)
    kept = [{k: v for k, v in line.items() if not k.startswith("knn")} for line in log(run)]
    assert log(tmp_path) == kept[1:]


@pytest.mark.parametrize(("model", "amp"), [("convmae", "off"), ("fastconvmae", "bf16")])
def test_the_last_figure_is_that_of_the_command(data, tmp_path, model, amp):
    flags = dict(amp=amp, probe_label_fraction=0.75)
    pretrain_main(probed(data, tmp_path, model=f"{model}_convvit_tiny_patch8_32", **flags))
    command = dict(
        model="convvit_tiny_patch8_32",
        in_chans=1,
        data_path=data,
        init_weights=tmp_path / "encoder.pth",
        output_dir=tmp_path / "knn",
        k=5,
        label_fraction=0.75,
        batch_size=8,
        amp=amp,
        num_workers=0,
        device="cpu",
    )
    knn.main([f"--{name}={value}" for name, value in command.items()])
    expected = json.loads((tmp_path / "knn" / "knn.json").read_text())
    assert expected["training_images"] == 18
    last = log(tmp_path)[-1]
    assert (last["knn_acc1"], last["knn_acc5"]) == (expected["acc1"], expected["acc5"])
    assert 34 < last["knn_acc1"] < 100


def test_the_weights_are_those_that_the_command_loads(data, run):
    """Of another size than the model is trained at, with colours, and after the weights have changed."""
    args = parse_args(probed(data, run.parent / "none", in_chans=3, input_size=48, probe_k=2))
    args.amp, args.decoder = "off", "pil"
    parts = pretraining_parts(args, World(), CPU, False)
    probe = NeighbourProbe(args, parts.model, World(), CPU, parts.precision)
    probe.measure()
    with torch.no_grad():
        for parameter in parts.model.parameters():
            parameter.mul_(1.25)
    parts.model.train()
    before = torch.get_rng_state()
    probe.measure()
    assert torch.equal(torch.get_rng_state(), before) and parts.model.training
    assert all(parameter.grad is None for parameter in parts.model.parameters())
    expected = type(probe.extractor)(**_sizes(probe.extractor))
    load_trunk(expected, {"model": parts.model.state_dict(), "args": vars(args)})
    found = probe.extractor.state_dict()
    assert all(torch.equal(found[name], t) for name, t in expected.state_dict().items())


def _sizes(model):
    return dict(
        img_size=model.img_size,
        patch_size=model.patch_size,
        embed_dim=model.embed_dim,
        depth=[len(blocks) for blocks in (model.blocks1, model.blocks2, model.blocks3)],
        num_heads=4,
        num_classes=0,
    )


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_a_stopped_run_resumes_exactly(data, run, tmp_path, steps):
    pretrain_main(probed(data, tmp_path, max_steps=steps))
    pretrain_main(probed(data, tmp_path, resume="auto"))
    assert_same_checkpoint(tmp_path, run, 9)
    assert log(tmp_path) == log(run)


def test_a_run_that_starts_over_measures_its_start_once(data, run, tmp_path):
    shutil.copy(run / "log.jsonl", tmp_path)
    pretrain_main(probed(data, tmp_path, epochs=1, resume="auto"))
    assert [line["epoch"] for line in log(tmp_path)] == [-1, 0]


def test_two_processes_equal_one(data, run, tmp_path):
    preloaded.run_as_two(["-m", "pretrain", *probed(data, tmp_path, batch_size=4)], ENVIRONMENT)
    assert accuracies(tmp_path) == accuracies(run)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(probe="nowhere"), "--probe nowhere: There is no data at nowhere"),
        (dict(probe_k=25), "--probe .*: --probe_k 25 neighbours cannot be found among 24 training images"),
        (dict(probe_k=0), "--probe_k must be at least 1, got 0"),
        (dict(probe_label_fraction=0), "--probe_label_fraction must be above 0 and at most 1, got 0.0"),
        (dict(probe_val_split="test"), "no folder .*test: .* with --probe_train_split and --probe_val_split"),
        (dict(probe_epochs=0), "--probe_epochs must be at least 1, got 0"),
        (dict(probe=""), "--probe_epochs needs the labelled images of --probe"),
    ],
)
def test_mistakes_are_refused_before_training(data, tmp_path, overrides, message):
    with pytest.raises(SystemExit, match=message) as e:
        pretrain_main(probed(data, tmp_path / "out", **overrides))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


def test_splits_of_other_classes(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(copy / "val" / "stripes6")
    with pytest.raises(SystemExit, match=r"validation images lack the class\(es\) stripes6"):
        pretrain_main(probed(data, tmp_path / "out", probe=copy))
    assert not (tmp_path / "out").exists()


def test_fewer_images_than_processes(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    for path in copy.glob("val/*/*.png"):
        if path.name != "0.png":
            path.unlink()
    args = parse_args(probed(data, tmp_path / "out", probe=copy, batch_size=1))
    with pytest.raises(ValueError, match="3 images cannot be shared by 4 processes"):
        train(args, _Processes(size=4), CPU, pretraining_parts)


class _Processes(World):
    """One of several processes, all of which found the same."""

    def gather(self, value):
        return [value] * self.size
