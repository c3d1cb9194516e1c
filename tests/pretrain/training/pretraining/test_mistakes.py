"""What `python -m pretrain` says to a mistake in its arguments, data or checkpoints."""

import pytest
import torch
from pretraining_runs import arguments

from pretrain.__main__ import main as pretrain_main


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(data_path="nowhere"), "There is no data at nowhere"),
        (dict(model="vit"), "There is no model 'vit'; choose one of convmae_convvit_tiny_patch8"),
        (dict(mask_ratio=1.0), "mask_ratio must be at least 0 and below 1, got 1.0"),
        (dict(model="fastconvmae_convvit_tiny_patch16", mask_ratio=0.6), "needs mask_ratio 0.75, got 0.6"),
        (dict(batch_size=16), "10 images give no optimizer step"),
        (dict(input_size=40), "40x40 is not divisible by the total stride 16"),
        (dict(device="cuda"), "there is no usable GPU"),
        (dict(resume="missing.pth"), "missing.pth does not exist"),
        (dict(resume="b.pth", init_weights="a.pth"), "give only one of them"),
        (dict(max_steps=-1), "--max_steps must be at least 0, got -1"),
        (dict(save_steps=-1), "--save_steps must be at least 0, got -1"),
        (dict(num_workers=-1), "--num_workers must be at least 0, got -1"),
        (dict(seed=-1), r"--seed must be at least 0 and below 2\*\*31, got -1"),
        (dict(seed=2**31), r"--seed must be at least 0 and below 2\*\*31, got 2147483648"),
        (dict(blr=1e300), r"--blr must be at most 1e\+06, got 1e\+300"),
        (dict(weight_decay=1e300), r"--weight_decay must be at most 1e\+06, got 1e\+300"),
        (dict(max_corrupt=1.5), "--max_corrupt must be at least 0 and at most 1, got 1.5"),
        (dict(warmup_epochs=-1), "--warmup_epochs must be at least 0, got -1.0"),
        (dict(weight_decay="nan"), "--weight_decay must be at least 0, got nan"),
        (dict(min_lr=-1e-3), "--min_lr must be at least 0, got -0.001"),
        (dict(clip_grad=-1), "--clip_grad must be at least 0, got -1.0"),
        (dict(lr=0), "--lr must be above 0, got 0.0"),
        (dict(blr="inf"), "--blr must be above 0, got inf"),
        (dict(shard_window=-1), "--shard_window must be at least 0, got -1"),
        (dict(data_path=""), "--data_path is empty; name the data, or . for the current folder"),
        (dict(output_dir=""), "--output_dir is empty; name a folder, or . for the current one"),
        (dict(output_dir="run\udcff"), r"--output_dir 'run\\udcff' is not UTF-8; choose another name"),
        (dict(picture_epochs=0), "--picture_epochs must be at least 1, got 0"),
    ],
)
def test_mistakes_get_one_clear_message(images, tmp_path, overrides, message, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what is not refused may write there
    if overrides.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match=message) as e:
        pretrain_main(arguments(images, **dict(output_dir=tmp_path / "out") | overrides))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


def test_mistaken_checkpoints(images, whole_run, tmp_path):
    def fails(message, **overrides):
        with pytest.raises(SystemExit, match=message):
            pretrain_main(arguments(images, tmp_path / "out", **overrides))

    good = whole_run / "checkpoint-00000010.pth"
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(good.read_bytes()[:100_000])
    fails("truncated.pth cannot be read safely: it is damaged", resume=truncated)
    fails("truncated.pth cannot be read safely: it is damaged", init_weights=truncated)
    other = "fastconvmae_convvit_small_patch16"
    fails("is of a run with --model convmae_convvit_tiny_patch16", resume=good, model=other)
    fails(r"does not hold this model's weights: \d+ of \d+ tensors fit", init_weights=good, model=other)
    fails("holds no state of a run", resume=whole_run / "encoder.pth")
    earlier = whole_run / "checkpoint-00000005.pth"
    with pytest.raises(SystemExit, match=r"is of step 5, but .* holds the later checkpoint-00000010\.pth; continue"):
        pretrain_main(arguments(images, whole_run, resume=earlier))
    with pytest.raises(SystemExit, match=r"already holds checkpoint-00000010\.pth; continue it with --resume auto"):
        pretrain_main(arguments(images, whole_run))
