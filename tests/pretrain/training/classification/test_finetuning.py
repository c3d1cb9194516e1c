"""Whole runs of fine-tuning: files, resuming, evaluation."""

import json
import signal
import time

import preloaded
import pytest
from classification_runs import CLASSES, arguments, assert_same_run
from runs import ENVIRONMENT, result

from pretrain import finetune
from pretrain.common.files import load_checkpoint


def test_files_of_a_finetuning(finetuned):
    names = {p.name for p in finetuned.iterdir() if not p.name.startswith("events")}
    assert names == {
        "args.json",
        "log.jsonl",
        "finetune.json",
        "classifier.pth",
        "classifier_best.pth",
        "classifier_ema.pth",
        "checkpoint-00000005.pth",
        "checkpoint-00000006.pth",
    }
    lines = [json.loads(line) for line in (finetuned / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1] and "ema_acc1" in lines[1]
    found = result(finetuned, "finetune")
    assert found["images"] == 9 and found["classes"] == 3 and found["best"]["val_acc1"] >= found["acc1"]
    assert load_checkpoint(finetuned / "classifier.pth")["classes"] == list(CLASSES)


def test_killed_and_resumed_equals_uninterrupted(data, pretrained, finetuned, tmp_path):
    flags = arguments(data, tmp_path, init_weights=pretrained, model_ema=0.9, save_steps=1, resume="auto")
    process = preloaded.start(["-m", "pretrain.finetune", *flags], ENVIRONMENT)
    while not any(int(p.stem[-8:]) >= 2 for p in tmp_path.glob("checkpoint-*.pth")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    finetune.main(flags)
    assert_same_run(tmp_path, finetuned, 6)
    assert result(tmp_path, "finetune") == result(finetuned, "finetune")


def test_evaluation_of_a_finetuned_file(data, finetuned, tmp_path, caplog, address_of):
    caplog.set_level("INFO")
    address = address_of(finetuned / "classifier.pth")
    finetune.main([*arguments(data, tmp_path, init_weights=address), "--eval"])
    trained, evaluated = result(finetuned, "finetune"), result(tmp_path, "eval")
    assert evaluated["acc1"] == trained["acc1"] and evaluated["loss"] == pytest.approx(trained["loss"], rel=1e-6)
    finetune.main([*arguments(data, tmp_path / "ema", init_weights=finetuned / "classifier_ema.pth"), "--eval"])
    averaged = result(tmp_path / "ema", "eval")
    assert averaged["acc1"] == trained["ema_acc1"] and averaged["loss"] == pytest.approx(trained["ema_loss"], rel=1e-6)
    assert averaged["loss"] != evaluated["loss"] and evaluated["weights"] == address
    line = f"* Acc@1 {trained['acc1']:.3f} Acc@5 100.000 loss {trained['loss']:.3f}"
    assert line in [record.getMessage() for record in caplog.records]


def test_another_input_size_resizes_positions(data, pretrained, tmp_path, caplog, address_of):
    caplog.set_level("INFO")
    finetune.main(arguments(data, tmp_path, init_weights=address_of(pretrained), input_size=48, epochs=1))
    assert "pos_embed resized from a grid of 4x4 to 6x6" in caplog.text
    assert load_checkpoint(tmp_path / "classifier.pth")["model"]["pos_embed"].shape == (1, 36, 128)


def test_changed_recipe_applies_to_a_resumed_run(data, tmp_path, caplog):
    start = arguments(data, tmp_path, max_steps=3, lr=2e-3)
    finetune.main(start)
    resumed = dict(resume="auto", max_steps=4, lr=None)
    finetune.main(arguments(data, tmp_path, **resumed, weight_decay=0.3, layer_decay=0.9))
    assert "Resuming with --weight_decay 0.3 where the run had 0.05" in caplog.text
    assert "which follows from --blr, where the run had 0.002; --lr 0.002 keeps that" in caplog.text
    groups = load_checkpoint(tmp_path / "checkpoint-00000004.pth")["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
    assert sorted({group["lr_scale"] for group in groups})[-2] == pytest.approx(0.9)
