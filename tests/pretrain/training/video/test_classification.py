"""Whole runs on videos of fine-tuning, probes, views and predictions."""

import json

import numpy as np
import preloaded
import pytest
import torch
from runs import ENVIRONMENT, log, result
from safetensors.numpy import load_file
from video_runs import arguments, assert_same_run, killed_at, knn_arguments, pretraining_arguments

from pretrain import finetune, knn, linprobe, video
from pretrain.__main__ import main as pretrain_main
from pretrain.common.files import load_checkpoint, load_metadata
from pretrain.models import build_model


def test_killed_and_resumed_finetuning_equals_uninterrupted(videos, pretrained, finetuned, tmp_path, monkeypatch):
    weights = pretrained / "encoder.pth"
    flags = arguments(videos, tmp_path, init_weights=weights, model_ema=0.9, save_steps=1, resume="auto")
    killed_at(5, monkeypatch, finetune.main, flags)
    finetune.main(flags)
    assert_same_run(tmp_path, finetuned, 6)
    assert result(tmp_path, "finetune") == result(finetuned, "finetune")


def test_two_processes_equal_one_in_finetuning(videos, pretrained, tmp_path):
    """Three held-out videos: an evaluation that padded its share to equal length would count four."""
    plain = dict(init_weights=pretrained / "encoder.pth", epochs=1, mixup=0, cutmix=0, drop_path=0, model_ema=0.9)
    finetune.main(arguments(videos, tmp_path / "one", **plain, batch_size=6))
    two = arguments(videos, tmp_path / "two", **plain, batch_size=3)
    preloaded.run_as_two(["-m", "pretrain.finetune", *two], ENVIRONMENT)
    for file in ("classifier.pth", "classifier_ema.pth"):
        one, two = (load_checkpoint(tmp_path / name / file)["model"] for name in ("one", "two"))
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, two[name], rtol=1e-4, atol=1e-5, msg=name)
    one, two = (result(tmp_path / name, "finetune") for name in ("one", "two"))
    assert one["images"] == two["images"] == 3
    assert one["acc1"] == pytest.approx(two["acc1"]) and one["loss"] == pytest.approx(two["loss"], rel=1e-5)


def test_finetuning_and_the_views_of_its_evaluation(videos, finetuned, tmp_path):
    trained = result(finetuned, "finetune")
    assert (trained["classes"], trained["images"], trained["num_frames"]) == (2, 3, 4)
    assert log(finetuned)[0]["short_videos"] == 1
    weights = finetuned / "classifier.pth"
    assert load_checkpoint(weights)["classes"] == ["brighter", "darker"]
    finetune.main([*arguments(videos, tmp_path, init_weights=weights, test_clips=1, test_crops=1), "--eval"])
    one = result(tmp_path, "eval")
    assert one["acc1"] == trained["acc1"] and one["loss"] == pytest.approx(trained["loss"], rel=1e-5)
    finetune.main([*arguments(videos, tmp_path, init_weights=weights), "--eval"])
    several = result(tmp_path, "eval")
    assert (several["clips"], several["crops"]) == (5, 3) and several["loss"] != one["loss"]


def test_probe_and_neighbours(videos, pretrained, tmp_path):
    weights = pretrained / "encoder.pth"
    linprobe.main([*arguments(videos, tmp_path, init_weights=weights), "--no-augment"])
    linprobe.main(arguments(videos, tmp_path / "augmented", init_weights=weights, epochs=1))
    knn.main(knn_arguments(videos, tmp_path, init_weights=weights))
    found = result(tmp_path, "knn")
    assert (found["images"], found["training_images"], found["classes"]) == (3, 6, 2)
    assert 0 <= result(tmp_path, "linprobe")["acc1"] <= 100 and log(tmp_path / "augmented")[0]["short_videos"] == 1
    # What --probe measures in the course of pretraining is what the command measures.
    probed = tmp_path / "probed"
    pretrain_main(pretraining_arguments(videos, probed, epochs=1, probe=videos, probe_k=3))
    knn.main(knn_arguments(videos, probed, init_weights=probed / "encoder.pth"))
    assert log(probed)[-1]["knn_acc1"] == result(probed, "knn")["acc1"]


def test_images_start_a_run(videos, tmp_path, caplog):
    caplog.set_level("INFO")
    image = build_model("convvit_tiny_patch16", img_size=32, num_classes=3)
    torch.save({"model": image.state_dict()}, tmp_path / "image.pth")
    finetune.main(arguments(videos, tmp_path / "out", init_weights=tmp_path / "image.pth", epochs=1, conv_frames=3))
    assert "grid 2x2 repeated in 2 time slots" in caplog.text and "the middle of 3x5x5" in caplog.text


def test_lists(videos, tmp_path):
    for split in ("train", "val"):
        paths = sorted(videos.glob(f"{split}/*/*.mp4"))
        lines = [f"{path.relative_to(videos)} {int(path.parent.name == 'darker')}\n" for path in paths]
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    knn.main(knn_arguments(tmp_path, tmp_path / "out", video_root=videos))
    assert result(tmp_path / "out", "knn")["classes"] == 2


def test_prediction_and_features(videos, pretrained, finetuned, tmp_path, capsys, address_of):
    clip = str(videos / "val" / "darker" / "0.mp4")
    common = ["--device", "cpu", "--clips", "2", "--weights"]
    video.main(["predict", clip, *common, address_of(finetuned / "classifier.pth")])
    lines = capsys.readouterr().out.split("\n")[:2]
    assert {line.split("%  ")[1] for line in lines} == {"brighter", "darker"}
    assert sum(float(line.split("%")[0]) for line in lines) == pytest.approx(100, abs=0.11)

    flags = [str(videos / "val"), "--num_workers", "0", *common, str(pretrained / "encoder.pth")]
    for name in ("f.npy", "f.safetensors"):
        video.main(["features", flags[0], str(tmp_path / name), *flags[1:]])
    features = np.load(tmp_path / "f.npy")
    names = (tmp_path / "f.txt").read_text().splitlines()
    assert features.shape == (3, 128) and names == ["brighter/0.mp4", "brighter/1.mp4", "darker/0.mp4"]
    assert np.array_equal(load_file(tmp_path / "f.safetensors")["features"], features)
    assert json.loads(load_metadata(tmp_path / "f.safetensors")["names"]) == names
    for command, message in (
        (["predict", clip, *common, str(pretrained / "encoder.pth")], "has no classification head"),
        (["predict", str(videos / "val"), *common, str(finetuned / "classifier.pth")], "holds 3 videos; give one"),
        (["features", flags[0], str(tmp_path / "f.csv"), *flags[1:]], r"must end in \.npy or \.safetensors"),
    ):
        with pytest.raises(SystemExit, match=message):
            video.main(command)
