"""Whole runs on videos: pretraining, fine-tuning, probes, views, files, and what a user's mistake says."""

import json
import os

import numpy as np
import preloaded
import pytest
import torch
from clips import write_numbered
from parity import REPO
from PIL import Image
from safetensors.numpy import load_file

from pretrain import finetune, knn, linprobe, video, visualize
from pretrain.__main__ import main as pretrain_main
from pretrain.common.files import load_checkpoint, load_metadata
from pretrain.data.video.files import open_video, write_video
from pretrain.models import build_model
from pretrain.training.args import parse_args
from pretrain.training.classification_args import parse_finetune_args, parse_knn_args
from pretrain.training.step import Stepper

pytest.importorskip("av")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Videos that get brighter or darker, six for training and three held out; one is too short for a clip."""
    root = tmp_path_factory.mktemp("videos")
    for split, count in (("train", 3), ("val", 2)):
        for name, ramp in (("brighter", np.arange(8)), ("darker", np.arange(8)[::-1])):
            (root / split / name).mkdir(parents=True)
            for i in range(count - (split == "val" and name == "darker")):
                frames = np.broadcast_to(ramp[:, None, None, None] * 20 + 40 + 9 * i, (8, 32, 48, 3))
                write_video(frames.astype(np.uint8), root / split / name / f"{i}.mp4")
    write_numbered(root / "train" / "brighter" / "2.mp4", 2)
    return root


def arguments(data, output_dir, **overrides):
    flags = dict(
        model="videoconvvit_tiny_patch16",
        data_path=data,
        output_dir=output_dir,
        input_size=32,
        num_frames=4,
        frame_step=1,
        batch_size=2,
        epochs=2,
        warmup_epochs=1,
        lr=1e-3,
        num_workers=0,
        device="cpu",
        log_steps=1,
    )
    flags |= overrides
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value)) if value is not None]
    return [word for word in words if word != "True"]


def pretraining_arguments(data, output_dir, **overrides):
    return arguments(data, output_dir, **dict(model="videoconvmae_convvit_tiny_patch16", mask_ratio=0.5) | overrides)


def knn_arguments(data, output_dir, **overrides):
    none = dict.fromkeys(("epochs", "warmup_epochs", "lr", "log_steps"))
    return arguments(data, output_dir, **none | dict(k=3) | overrides)


def result(output_dir, name):
    return json.loads((output_dir / f"{name}.json").read_text())


def log(output_dir):
    return [json.loads(line) for line in open(output_dir / "log.jsonl")]


def assert_same_run(a, b, step):
    a, b = (load_checkpoint(path / f"checkpoint-{step:08d}.pth") for path in (a, b))
    for part in ("model", "clip_notes", "totals", "best"):
        assert repr(a.get(part)) == repr(b.get(part)), part
    for name, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][name]), name
    for key, moments in a["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, b["optimizer"]["state"][key][name]), (key, name)
    assert torch.equal(a["rng"][0]["torch"], b["rng"][0]["torch"])


def killed_at(step, monkeypatch, command, flags):
    """Runs a command that is torn off in the middle of a step."""
    steps = []

    def step_or_die(self, group, original=Stepper.step):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        return original(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", step_or_die)
        with pytest.raises(SystemExit, match="130"):
            command(flags)


@pytest.fixture(scope="module")
def pretrained(videos, tmp_path_factory):
    """Two epochs of three steps."""
    output_dir = tmp_path_factory.mktemp("pretrained")
    pretrain_main(pretraining_arguments(videos, output_dir))
    return output_dir


@pytest.fixture(scope="module")
def finetuned(videos, pretrained, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("finetuned")
    finetune.main(arguments(videos, output_dir, init_weights=pretrained / "encoder.pth", model_ema=0.9))
    return output_dir


def test_pretraining(pretrained):
    names = {p.name for p in pretrained.iterdir() if not p.name.startswith("events")}
    assert {"args.json", "log.jsonl", "encoder.pth", "checkpoint-00000006.pth", "reconstructions"} <= names
    first, last = log(pretrained)
    assert last["train_loss"] < first["train_loss"] and "val_loss" in last
    assert first["short_videos"] == last["short_videos"] == 1 and "rotated_videos" not in last
    # Two clips, four rows each; four frames in columns
    picture = Image.open(pretrained / "reconstructions" / "epoch-0002.png")
    assert picture.size == (4 * 32 + 3 * 4, 8 * 32 + 7 * 4)
    assert result(pretrained, "args")["flip"] is True


def test_killed_and_resumed_pretraining_equals_uninterrupted(videos, pretrained, tmp_path, monkeypatch):
    flags = pretraining_arguments(videos, tmp_path, save_steps=1, resume="auto")
    killed_at(5, monkeypatch, pretrain_main, flags)
    assert max(tmp_path.glob("checkpoint-*")).name == "checkpoint-00000004.pth"
    pretrain_main(flags)
    assert_same_run(tmp_path, pretrained, 6)
    assert [r["val_loss"] for r in log(tmp_path)] == [r["val_loss"] for r in log(pretrained)]


def test_killed_and_resumed_finetuning_equals_uninterrupted(videos, pretrained, finetuned, tmp_path, monkeypatch):
    weights = pretrained / "encoder.pth"
    flags = arguments(videos, tmp_path, init_weights=weights, model_ema=0.9, save_steps=1, resume="auto")
    killed_at(5, monkeypatch, finetune.main, flags)
    finetune.main(flags)
    assert_same_run(tmp_path, finetuned, 6)
    assert result(tmp_path, "finetune") == result(finetuned, "finetune")


def test_two_processes_equal_one(videos, tmp_path):
    pretrain_main(pretraining_arguments(videos, tmp_path / "one", batch_size=6))
    two = pretraining_arguments(videos, tmp_path / "two", batch_size=3)
    preloaded.run_as_two(["-m", "pretrain", *two], ENVIRONMENT)
    one, two = (load_checkpoint(tmp_path / name / "encoder.pth") for name in ("one", "two"))
    for name, tensor in one["model"].items():
        torch.testing.assert_close(tensor, two["model"][name], rtol=1e-4, atol=1e-5, msg=name)
    assert [r["short_videos"] for name in ("one", "two") for r in log(tmp_path / name)] == [1, 1, 1, 1]


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


@pytest.mark.parametrize("name", ["sheet.png", "clips.gif", "clips.mp4"])
def test_pictures_of_reconstructions(videos, pretrained, tmp_path, name):
    checkpoint = str(pretrained / "checkpoint-00000006.pth")
    visualize.main(["--checkpoint", checkpoint, "--videos", str(videos), "--output", str(tmp_path / name), "--count=2"])
    if name == "clips.mp4":
        with open_video(tmp_path / name) as film:
            assert film.read([0, film.num_frames - 1], 3).shape == (2, 6 * 68, 6 * 140, 3) and film.num_frames == 4
        return
    picture = Image.open(tmp_path / name)
    assert picture.size == tuple(6 * side for side in ((140, 284) if name == "sheet.png" else (140, 68)))
    assert getattr(picture, "n_frames", 1) == (1 if name == "sheet.png" else 4)


def test_recipes():
    k400 = parse_args(["--model=videoconvmae_convvit_base_patch16", "--data_path=x", "--output_dir=y"])
    assert (k400.mask_ratio, k400.frame_step, k400.flip, k400.blr) == (0.9, 4, True, 1.5e-4)
    flags = ["--model=videoconvvit_base_patch16", "--data_path=x", "--output_dir=y", "--recipe=ssv2"]
    ssv2 = parse_finetune_args([*flags, "--batch_size=8"])
    assert (ssv2.sampling, ssv2.flip, ssv2.test_clips, ssv2.layer_decay) == ("segments", False, 2, 0.75)
    assert (ssv2.blr, ssv2.epochs, ssv2.batch_size, ssv2.aa) == (5e-4, 50, 8, "rand-m7-n4-mstd0.5-inc1")
    assert parse_knn_args(flags).num_frames == 16
    assert not hasattr(parse_args(["--model=convmae_convvit_base_patch16", "--data_path=x", "--output_dir=y"]), "flip")


@pytest.mark.parametrize(
    ("main", "overrides", "message"),
    [
        (pretrain_main, dict(model="convmae_convvit_tiny_patch16"), "--num_frames is an option of video models"),
        (pretrain_main, dict(num_frames=5), "A clip of 5 frames is not made of time slots of 2 frames"),
        (pretrain_main, dict(num_frames=0), "--num_frames must be at least 1, got 0"),
        (pretrain_main, dict(mask_ratio=1.5), r"mask_ratio must be at least 0 and below 1, got 1\.5"),
        (pretrain_main, dict(in_chans=2), "can be read with 1 or 3 channels, not in_chans 2"),
        (pretrain_main, dict(data_path="nowhere"), "There is no data at nowhere"),
        (pretrain_main, dict(batch_size=64), "6 videos give no optimizer step"),
        (finetune.main, dict(cls_token="True"), "--cls_token is an option of image models"),
        (finetune.main, dict(aa="bogus"), "--aa bogus is not a RandAugment policy"),
        (finetune.main, dict(test_crops=0), "--test_crops must be at least 1, got 0"),
        (finetune.main, dict(val_split="test"), "There is no folder .*test and no list .*test.csv"),
    ],
)
def test_mistakes_get_one_clear_message(videos, tmp_path, main, overrides, message):
    flags = pretraining_arguments if main is pretrain_main else arguments
    with pytest.raises(SystemExit, match=message) as e:
        main(flags(videos, tmp_path / "out", **overrides))
    assert "\n" not in str(e.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"no video", b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8])
def test_text_and_damage_named_mp4(tmp_path, content):
    for split in ("train", "val"):
        for i in range(3):
            (tmp_path / split / "a").mkdir(parents=True, exist_ok=True)
            (tmp_path / split / "a" / f"{i}.mp4").write_bytes(content)
    for main, flags in ((pretrain_main, pretraining_arguments), (knn.main, knn_arguments)):
        with pytest.raises(SystemExit, match=r"None of \d video\(s\) from .*mp4 on can be read: are these video") as e:
            main(flags(tmp_path, tmp_path / "out"))
        assert "\n" not in str(e.value)
