"""Runs that an earlier version began go on with the same numbers, and a seed gives the run that it gave then.

`tests/old_runs/pretrain` holds, for each kind of run, a checkpoint from the middle of the first epoch and the result.
"""

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from parity import REPO
from PIL import Image
from recorded import recorded_with

from pretrain import finetune, linprobe
from pretrain.__main__ import main as pretrain_main
from pretrain.common.files import load_checkpoint
from pretrain.models import CLASSIFIERS, MODELS

pytestmark = recorded_with("torch", "torchvision", "timm", "pillow")

OLD = REPO / "tests/old_runs/pretrain"
COMMANDS = {"pretrain": pretrain_main, "finetune": finetune.main, "linprobe": linprobe.main}
FLAGS = dict(
    num_workers=0,
    batch_size=2,
    epochs=2,
    warmup_epochs=1,
    device="cpu",
    keep_checkpoints=9,
    log_steps=1,
    seed=1,
    save_steps=2,
)
TRUNK = dict(embed_dim=(8, 8, 16), depth=(1, 1, 1), num_heads=2)
DECODER = dict(decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2)
ROUNDING = 1e-6
"""The keys' biases have no gradient but rounding, which AdamW makes steps of."""

COUNTERS = ("epoch", "iteration", "step", "effective_batch", "images", "totals", "corrupt")


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    """Both models at the width of the old runs; one thread, so that sums have one order."""
    for table, name, sizes in (
        (MODELS, "convmae_convvit_tiny_patch8_32", TRUNK | DECODER),
        (CLASSIFIERS, "convvit_tiny_patch8_32", TRUNK),
    ):
        monkeypatch.setitem(table, name, table[name] | sizes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The images of the old runs: noise in two classes."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("ant", "bee"):
            (root / split / kind).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / kind / f"{i}.png")
    return root


def flags(kind, images, output_dir, **overrides):
    model = "convmae_convvit_tiny_patch8_32" if kind == "pretrain" else "convvit_tiny_patch8_32"
    values = FLAGS | dict(model=model, data_path=images, output_dir=output_dir) | overrides
    if kind == "finetune":
        values["model_ema"] = 0.9
    return [f"--{name}={value}" for name, value in values.items()]


def expected_of(kind):
    return json.loads((OLD / "expected.json").read_text())[kind]


def leaves(tree, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for key in tree:
            yield from leaves(tree[key], f"{name}.{key}")
    elif isinstance(tree, list | tuple):
        for i, item in enumerate(tree):
            yield from leaves(item, f"{name}.{i}")
    else:
        yield name.lstrip("."), tree


def fingerprint(state: dict) -> dict[str, list[float]]:
    """Norm of every tensor of the weights, the moments and the average, and its projection on a wave."""
    parts = {"model": state["model"], "moments": state["optimizer"]["state"], "ema": state.get("ema", {})}
    found = {}
    for name, tensor in leaves(parts):
        if isinstance(tensor, torch.Tensor):
            values = tensor.double().flatten()
            wave = torch.arange(len(values), dtype=torch.float64).cos()
            found[name] = [values.norm().item(), values.dot(wave).item()]
    return found


def generators(state: dict) -> str:
    """Digest of the random generators: exact on every machine, and another one after a draw more or less."""
    plain = [v.tolist() if isinstance(v, torch.Tensor) else v for _, v in leaves(state["rng"])]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def assert_as_expected(kind, output_dir):
    """The run in `output_dir` ended as the old one; vector instructions of a machine may round differently."""
    expected = expected_of(kind)
    state = load_checkpoint(output_dir / "checkpoint-00000008.pth")
    assert list(state) == expected["keys"]
    assert {name: state[name] for name in COUNTERS} == expected["counters"]
    assert generators(state) == expected["generators"]
    found = fingerprint(state)
    assert list(found) == list(expected["fingerprint"])
    for name, (norm, projection) in expected["fingerprint"].items():
        assert found[name] == pytest.approx([norm, projection], abs=1e-5 * norm + ROUNDING, rel=1e-5), name
    log = [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]
    for line, losses in zip(log[-len(expected["log"]) :], expected["log"], strict=True):
        assert {name: line[name] for name in losses} == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_old_checkpoint_resumes(kind, images, tmp_path):
    COMMANDS[kind](flags(kind, images, tmp_path, resume=OLD / kind / "checkpoint-00000002.pth"))
    assert_as_expected(kind, tmp_path)


def test_another_decoder_than_that_of_the_old_run_is_told(images, tmp_path, caplog):
    checkpoint = OLD / "pretrain" / "checkpoint-00000002.pth"
    pretrain_main(flags("pretrain", images, tmp_path, resume=checkpoint, decoder="torchvision", max_steps=3))
    assert "Resuming with --decoder torchvision where the run had pil." in caplog.text
    assert load_checkpoint(tmp_path / "checkpoint-00000003.pth")["args"]["decoder"] == "torchvision"


def test_seeded_runs_are_those_of_an_earlier_version(images, tmp_path):
    """From random weights through the file that the classifiers start from."""
    for kind, command in COMMANDS.items():
        start = {} if kind == "pretrain" else dict(init_weights=tmp_path / "pretrain" / "encoder.pth")
        command(flags(kind, images, tmp_path / kind, decoder="pil", **start))
        assert_as_expected(kind, tmp_path / kind)
