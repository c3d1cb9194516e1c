"""Fine-tuning, linear probe and nearest neighbours in several processes."""

import pytest
import torch
from classification_runs import arguments, knn_arguments, two_processes
from runs import result

from pretrain import finetune, knn, linprobe
from pretrain.common.distributed import World
from pretrain.common.files import load_checkpoint
from pretrain.evaluation.features import extract_features


def test_two_processes_equal_one_in_finetuning(data, pretrained, tmp_path):
    """Nine held-out images: an evaluation that padded its share to equal length would count ten."""
    plain = dict(init_weights=pretrained, mixup=0, cutmix=0, drop_path=0, epochs=1, model_ema=0.9)
    finetune.main(arguments(data, tmp_path / "one", **plain))
    two_processes("pretrain.finetune", arguments(data, tmp_path / "two", **plain | dict(batch_size=2)))
    one, two = (load_checkpoint(tmp_path / n / "classifier.pth")["model"] for n in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5, msg=name)
    one, two = (result(tmp_path / n, "finetune") for n in ("one", "two"))
    assert one["acc1"] == pytest.approx(two["acc1"]) and one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["ema_loss"] == pytest.approx(two["ema_loss"], rel=1e-5)  # of the same average in both processes


def test_two_processes_equal_one_in_probe_and_neighbours(data, pretrained, tmp_path):
    flags = dict(init_weights=pretrained, epochs=1, lr=0.1)
    linprobe.main([*arguments(data, tmp_path / "one", **flags), "--no-augment"])
    two_processes("pretrain.linprobe", [*arguments(data, tmp_path / "two", **flags, batch_size=2), "--no-augment"])
    one, two = (load_checkpoint(tmp_path / n / "classifier.pth")["model"] for n in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5, msg=name)
    assert result(tmp_path / "one", "linprobe")["loss"] == pytest.approx(result(tmp_path / "two", "linprobe")["loss"])
    knn.main(knn_arguments(data, tmp_path / "one", init_weights=pretrained))
    two_processes("pretrain.knn", knn_arguments(data, tmp_path / "two", init_weights=pretrained))
    assert result(tmp_path / "one", "knn")["acc1"] == result(tmp_path / "two", "knn")["acc1"]


def test_more_processes_than_images(data):
    with pytest.raises(ValueError, match="9 images cannot be shared by 10 processes; start fewer"):
        extract_features(torch.nn.Identity(), range(9), 1, 0, World(size=10), torch.device("cpu"), None)
