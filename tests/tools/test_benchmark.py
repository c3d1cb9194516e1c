"""The benchmark command, and that it counts what it says."""

import os
import runpy
import sys

import preloaded
import pytest
import torch
from clips import write_numbered
from parity import REPO
from PIL import Image
from torch import nn

from pretrain.benchmarks import loader
from pretrain.benchmarks.video import benchmark_decoding, benchmark_video
from pretrain.common.measure import interleaved_times, saved_activation_bytes
from pretrain.names import LOADER_TRANSFORMS


def test_pretrain_benchmark_reports_all_rows():
    command = ["tools/benchmark.py", "pretrain", "--model", "fastconvmae_convvit_tiny_patch16"]
    flags = ["--input_size", "64", "--batch_size", "1", "--rounds", "1", "--threads", "1"]
    result = preloaded.run([*command, *flags], os.environ)
    assert result.returncode == 0, result.stderr
    rows = [line.split("|")[1].strip() for line in result.stdout.splitlines() if line.startswith("|")]
    assert rows == ["", "---", "dense, as published", "ours", "MAE ViT-B"]
    deviation = float(result.stdout.split("deviation of ours from dense: ")[1].split()[0])
    assert deviation < 1e-5


def test_a_row_for_each_target(monkeypatch, capsys):
    flags = ["--model", "convmaev2_convvit_tiny_patch16", "--input_size", "32", "--batch_size", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "pretrain", *flags, "--targets", "rgb", "ema", "v=test_vit"])
    runpy.run_path(str(REPO / "tools" / "benchmark.py"), run_name="__main__")
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [row[1].strip() for row in rows] == ["rgb", "rgb + ema", "rgb + v"]
    assert float(rows[0][4]) == 1.0 and all(float(row[2]) > 0 for row in rows)


def test_video_benchmark_reports_both_rows_and_the_decoding(tmp_path):
    pytest.importorskip("av")
    for i in range(2):
        write_numbered(tmp_path / f"{i}.mp4", 16)
    name, sizes = "videoconvmae_convvit_tiny_patch16", (2, 32, 4)
    report = benchmark_video(name, *sizes, 3, "cpu", "off", 1)
    rows = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("|")]
    assert rows == ["", "---", "dense, masked", "ours"]
    assert float(report.split("deviation of ours from dense: ")[1]) < 1e-5
    decoding, wait = benchmark_decoding(str(tmp_path), name, *sizes, 0, "cpu", 2).splitlines()
    assert float(decoding.split()[1]) > 0 and "% of 2 steps of batch 2 with 0 workers" in wait


@pytest.mark.parametrize("kind", LOADER_TRANSFORMS)
def test_every_loader_reads_all_whole_batches(monkeypatch, tmp_path, kind):
    for i in range(5):
        Image.linear_gradient("L").convert("RGB").save(tmp_path / f"{i}.jpg")
    batches = []
    monkeypatch.setattr(loader, "_read", lambda found: batches.append([batch[0].shape for batch in found]))
    report = loader.benchmark_loader(str(tmp_path), kind, images=5, batch_size=2, input_size=32, rounds=1)
    rows = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("|")][2:]
    names = ["published: PIL images, normalised one by one", "ours, --decoder torchvision", "ours, --decoder pil"]
    newer = ["torchvision's v2, PIL images", "torchvision's v2, decode_image"] if kind != "finetune" else []
    assert rows == [*names, "timm's loader", *newer]
    assert batches == [[(2, 3, 32, 32)] * 2] * 2 * len(rows)  # a round, and one to warm up


def test_a_folder_without_a_batch_of_images(monkeypatch, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "a.png")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "loader", "--data_path", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: .* must be a folder of at least 32 images"):
        runpy.run_path(str(REPO / "tools" / "benchmark.py"), run_name="__main__")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input_size", "100"], "Image size 100x100 is not divisible by the total stride 16"),
        (["--batch_size", "0"], "--batch_size must be at least 1, got 0."),
        (["--device", "nonsense"], "Device nonsense cannot be used"),
        (["--device", "cuda:99"], "Device cuda:99 cannot be used"),
        (["--targets", "v=no_such_vit"], "timm has no model 'no_such_vit'"),
    ],
)
def test_mistakes_are_told_without_a_traceback(monkeypatch, flags, message):
    command = ["benchmark.py", "pretrain", "--model", "convmae_convvit_tiny_patch16", "--batch_size", "1", *flags]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        runpy.run_path(str(REPO / "tools" / "benchmark.py"), run_name="__main__")


def test_a_negative_number_of_workers_is_refused_before_the_steps(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "video", "--videos", "nowhere", "--num_workers", "-1"])
    with pytest.raises(SystemExit, match=r"^error: --num_workers must be at least 0, got -1"):
        runpy.run_path(str(REPO / "tools" / "benchmark.py"), run_name="__main__")


def test_saved_activations_count_each_storage_once_and_no_weights():
    linear, x = nn.Linear(8, 8), torch.randn(4, 8)

    def forward():
        h = linear(x)  # keeps x and the weight
        return (h * h.t().t()).sum()  # keeps h, twice

    assert saved_activation_bytes(forward, linear.parameters()) == (4 * 8 + 4 * 8) * 4


def test_steps_take_turns():
    calls = []
    steps = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times = interleaved_times(steps, torch.device("cpu"), rounds=2, warmup=1)
    assert calls == list("ababab")
    assert times.keys() == steps.keys()
