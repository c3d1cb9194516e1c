"""`--targets` and its neighbours: what they name, their defaults, and one sentence for each mistake."""

import pytest

from pretrain.training.args import parse_args
from pretrain.training.target_args import loss_weights, parse_target

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"
REQUIRED = ["--model=fastconvmae_convvit_tiny_patch16", "--data_path=x", "--output_dir=y"]


@pytest.mark.parametrize(
    ("text", "name", "model", "file"),
    [
        ("rgb", "rgb", "", ""),
        ("ema", "ema", "", ""),
        ("clip", "clip", CLIP, ""),
        ("clip@a/b.safetensors", "clip", CLIP, "a/b.safetensors"),
        (f"clip=timm/{CLIP}", "clip", CLIP, ""),
        ("dino@c.pth", "dino", "vit_base_patch16_224.dino", "c.pth"),
        ("mae=vit_large_patch16_224.mae@m.bin", "mae", "vit_large_patch16_224.mae", "m.bin"),
        ("own=run/encoder.pth", "own", "", "run/encoder.pth"),
    ],
)
def test_targets(text, name, model, file):
    assert parse_target(text) == (name, model, file, text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--targets", "other"], "'other' is no target: write rgb, ema, clip, dino, NAME=MODEL"),
        (["--targets", "rgb=encoder.pth"], "rgb takes no model and no file"),
        (["--targets", "ema@file.pth"], "ema takes no model and no file"),
        (["--targets", "clip@"], "names no file after the @"),
        (["--targets", "own=a.pth@b.pth"], "names two files"),
        (["--targets", "a-b=vit"], "'a-b' cannot be a target's name"),
        (["--targets", "mimic=vit"], "'mimic' cannot be a target's name"),
        (["--targets", "keys=vit"], "'keys' cannot be a target's name"),
        (["--targets", "rgb", "rgb"], "--targets names rgb twice"),
        (["--targets", "rgb", "ema", "--target_weights", "1"], "--target_weights has 1 numbers for 2 --targets"),
        (["--target_weights", "-1"], r"--target_weights must be at least 0, got \[-1.0\]"),
        (["--target_weights", "nan"], "--target_weights must be at least 0"),
        (["--target_weights", "0"], "All weights are 0, so there is nothing to learn"),
        (["--mimic", "rgb"], "--mimic needs a teacher, and rgb has none"),
        (["--mimic_weight", "2"], "--mimic_weight needs --mimic TEACHER"),
        (["--ema_decay", "0.9"], "--ema_decay needs the target ema"),
        (["--targets", "ema", "--ema_decay", "0.9", "1.1"], r"at least 0 and at most 1, got \[0.9, 1.1\]"),
        (["--targets", "ema", "--ema_decay", "0", "1", "1"], "--ema_decay takes one number, or one for the start"),
    ],
)
def test_mistakes(flags, message):
    with pytest.raises(ValueError, match=message) as e:
        parse_args([*REQUIRED, *flags])
    assert "\n" not in str(e.value)


def test_defaults_and_weights():
    args = parse_args(REQUIRED)
    assert (args.targets, args.target_weights, args.mimic) == (["rgb"], [1.0], "")
    assert loss_weights(vars(args)) == loss_weights({}) == {"rgb": 1.0}  # runs of earlier versions have no such options
    args = parse_args([*REQUIRED, "--targets", "rgb", "clip", "--target_weights", "1", "0.5", "--mimic", "dino"])
    assert loss_weights(vars(args)) == {"rgb": 1.0, "clip": 0.5, "mimic": 1.0}
    assert parse_args([*REQUIRED, "--mimic", "ema"]).ema_decay == [0.996, 1.0]
    assert parse_args([*REQUIRED, "--targets", "ema", "--ema_decay", "0"]).ema_decay == [0.0, 0.0]
