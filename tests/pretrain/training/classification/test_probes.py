"""Whole runs of linear probe and nearest neighbours."""

import gzip

import numpy as np
import pytest
import torch
from classification_runs import arguments, assert_same_run, fails, knn_arguments
from runs import result

from pretrain import knn, linprobe
from pretrain.common.files import load_checkpoint


@pytest.mark.parametrize("augment", ["--augment", "--no-augment"])
def test_a_stopped_probe_resumes_exactly(data, pretrained, tmp_path, augment):
    flags = dict(init_weights=pretrained, save_steps=1, resume="auto", lr=0.1)
    linprobe.main([*arguments(data, tmp_path / "whole", **flags), augment])
    linprobe.main([*arguments(data, tmp_path / "stopped", max_steps=4, **flags), augment])
    linprobe.main([*arguments(data, tmp_path / "stopped", **flags), augment])
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", 6)


def test_the_probe_trains_its_head_alone(data, pretrained, tmp_path):
    linprobe.main([*arguments(data, tmp_path, init_weights=pretrained, lr=0.1), "--no-augment"])
    before, after = load_checkpoint(pretrained)["model"], load_checkpoint(tmp_path / "classifier.pth")["model"]
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(("patch_embed", "blocks")))
    assert {name for name in after if name.startswith("head")} == {
        "head.0.running_mean",
        "head.0.running_var",
        "head.0.num_batches_tracked",
        "head.1.weight",
        "head.1.bias",
    }
    assert after["head.0.num_batches_tracked"] == 6


def test_cached_features_change_nothing(data, pretrained, tmp_path):
    """Accuracy and loss of the file, whose evaluation runs the trunk, are those of the cached features."""
    linprobe.main([*arguments(data, tmp_path, init_weights=pretrained, lr=0.1), "--no-augment"])
    linprobe.main([*arguments(data, tmp_path / "e", init_weights=tmp_path / "classifier.pth"), "--eval"])
    trained, evaluated = result(tmp_path, "linprobe"), result(tmp_path / "e", "eval")
    assert evaluated["acc1"] == trained["acc1"] and evaluated["loss"] == pytest.approx(trained["loss"], rel=1e-5)


def test_fashion_mnist_and_a_share_of_its_labels(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 200), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = generator.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (tmp_path / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    flags = dict(k=5, label_fraction=0.05)
    knn.main(knn_arguments(f"fashion_mnist:{tmp_path}", tmp_path / "out", **flags))
    assert result(tmp_path / "out", "knn")["training_images"] == 10
    assert result(tmp_path / "out", "knn")["images"] == 20
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    flipped = whole[:12] + bytes([whole[12] ^ 255]) + whole[13:]
    for damaged in (flipped, whole[:-9], b"", b"no gzip", gzip.compress(b"")):
        labels.write_bytes(damaged)
        message = r"t10k-labels-idx1-ubyte\.gz is not a complete IDX file: "
        fails(knn, message, knn_arguments(f"fashion_mnist:{tmp_path}", tmp_path / "out"))
    labels.write_bytes(gzip.compress(gzip.decompress(whole)[:-1] + b"\n"))
    fails(knn, "has the val label 10, but", knn_arguments(f"fashion_mnist:{tmp_path}", tmp_path / "out"))
    labels.unlink()
    with pytest.raises(SystemExit, match=r"There is no t10k-labels-idx1-ubyte or .* package dataset-fashion-mnist"):
        knn.main(knn_arguments(f"fashion_mnist:{tmp_path}", tmp_path / "out"))
