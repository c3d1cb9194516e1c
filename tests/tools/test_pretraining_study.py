"""The study of what pretraining gives: every stage runs, and a finished one is not run again."""

import gzip
import importlib.util

import numpy as np
import pytest
import torch
from parity import REPO


@pytest.fixture
def study(monkeypatch):
    """The script as a module, cut down to seconds."""
    spec = importlib.util.spec_from_file_location("pretraining_study", REPO / "tools" / "pretraining_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TRAIN_IMAGES", 60)
    monkeypatch.setattr(module, "TEST_IMAGES", 20)
    monkeypatch.setattr(module, "EPOCHS", {"convmae": 1, "fastconvmae": 1})
    one = ["--batch_size=20", "--epochs=1", "--warmup_epochs=0", "--lr=1e-3"]
    for name in ("PRETRAIN", "PROBE", "FINETUNE"):
        monkeypatch.setattr(module, name, one)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


@pytest.fixture
def fashion(tmp_path):
    """Noise in the shape of Fashion-MNIST, compressed as in Debian's package."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 80), ("t10k", 30)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = generator.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (tmp_path / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    return tmp_path


def test_a_seed_and_its_report(study, fashion, tmp_path, capsys):
    output = tmp_path / "study"
    study.main([str(fashion), str(output), "--seeds", "3"])
    table = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1:3] for line in table if line.startswith("| ") and "---" not in line][1:]
    assert [tuple(word.strip() for word in row) for row in rows] == [
        ("knn", "random"),
        ("knn", "convmae"),
        ("knn", "fastconvmae"),
        ("linprobe", "random"),
        ("linprobe", "convmae"),
        ("linprobe", "fastconvmae"),
        ("finetune", "random"),
        ("finetune", "convmae"),
        ("pretraining, 1 epochs", "convmae"),
        ("pretraining, 1 epochs", "fastconvmae"),
    ]
    finished = output / "seed3" / "convmae" / "done.json"
    before = finished.read_text()
    (output / "seed3" / "random_knn" / "done.json").unlink()
    study.main([str(fashion), str(output), "--seeds", "3"])
    assert finished.read_text() == before and (output / "seed3" / "random_knn" / "done.json").exists()
