"""The loop with the parts of a toy task: linear regression on numbers, with one thing of its own to keep."""

import argparse
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from pretrain.common.distributed import World
from pretrain.common.errors import NonFiniteError, UserError
from pretrain.common.files import load_checkpoint
from pretrain.data.datasets import CorruptImages, EpochDataset
from pretrain.data.labels import LabelledSample
from pretrain.data.samplers import train_loader
from pretrain.training.classification import ClassificationLoss
from pretrain.training.metrics import Progress
from pretrain.training.parts import TrainingParts
from pretrain.training.precision import Precision
from pretrain.training.run import train

CPU = torch.device("cpu")


class Numbers(EpochDataset):
    seed = 0

    def __len__(self):
        return 8

    def __getitem__(self, key):
        x = torch.tensor([1.0, key[1] / 8])
        return LabelledSample(x, x.sum(0, keepdim=True), torch.empty(0, dtype=torch.int64))

    def name(self, index):
        return str(index)


class Journal:
    """What the loop called, and whether it was told to refuse a checkpoint."""

    def __init__(self):
        self.entries, self.refuses = [], False

    def state_dict(self):
        return {"steps_seen": self.entries.count("step")}

    def check(self, state):
        if self.refuses:
            raise UserError("not mine")

    def load_state_dict(self, state):
        self.entries += ["restored", *["step"] * state["steps_seen"]]


def regression(journal, **others):
    """Makes the parts of the toy task; `others` are parts it usually lacks."""

    def make_parts(args, world, device, initialise):
        journal.entries.append(f"made with lr {args.lr} amp {args.amp}" + (" from weights" if initialise else ""))
        model = nn.Linear(2, 1)
        data = Numbers()
        return TrainingParts(
            model=model,
            loader=train_loader(data, args.batch_size, 0, world, pin_memory=False),
            corrupt=CorruptImages(data, 0.0),
            loss=ClassificationLoss(model, nn.MSELoss()),
            optimizer=torch.optim.SGD(model.parameters(), lr=args.lr),
            precision=Precision(args.amp, device, model),
            inputs=lambda batch: (batch.image, batch.label),
            set_training_mode=lambda: journal.entries.append("mode"),
            start=lambda: journal.entries.append("start"),
            after_step=lambda _: journal.entries.append("step"),
            evaluate=lambda epoch: journal.entries.append(f"evaluate {epoch}") or {"val": 1.0},
            draw=lambda epoch, writer: journal.entries.append(f"draw {epoch}"),
            export=lambda state: journal.entries.append(f"export {state['step']}"),
            extras=[journal],
            **others,
        )

    return make_parts


def arguments(output_dir, **overrides):
    values = dict(
        model="regression",
        input_size=[1, 2],
        output_dir=str(output_dir),
        resume="",
        init_weights="",
        seed=0,
        batch_size=2,
        accum_iter=2,
        epochs=2,
        warmup_epochs=0.0,
        blr=0.5 * 256 / 4,
        lr=None,
        min_lr=0.0,
        amp=None,
        decoder=None,
        clip_grad=0.0,
        max_failures=1,
        compile=False,
        save_epochs=1,
        save_steps=0,
        keep_checkpoints=9,
        log_steps=1,
        shard_window=0,
        max_steps=0,
    )
    return argparse.Namespace(**values | overrides)


def run(output_dir, **overrides):
    journal = Journal()
    train(arguments(output_dir, **overrides), World(), CPU, regression(journal))
    return journal.entries


def test_parts_are_called_in_their_order(tmp_path):
    assert run(tmp_path, init_weights="a.pth") == [
        "made with lr 0.5 amp off from weights",
        "start",
        *("mode", "step", "step", "evaluate 1", "draw 1", "export 2"),
        *("mode", "step", "step", "evaluate 2", "draw 2", "export 4"),
    ]


def test_a_resumed_run_starts_after_its_state_is_restored(tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "stopped", max_steps=3)
    resumed = run(tmp_path / "stopped", resume="auto", init_weights="a.pth")
    assert resumed == [
        "made with lr 0.5 amp off",
        *("restored", "step", "step", "step", "start"),
        *("mode", "step", "evaluate 2", "draw 2", "export 4"),
    ]
    a, b = (load_checkpoint(tmp_path / name / "checkpoint-00000004.pth") for name in ("whole", "stopped"))
    assert a["steps_seen"] == b["steps_seen"] == 4
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_the_start_of_a_new_run_is_evaluated(tmp_path):
    def entries_of(**overrides):
        journal = Journal()
        start = dict(evaluate_start=lambda: journal.entries.append("evaluate start") or {"val": 2.0})
        train(arguments(tmp_path, **overrides), World(), CPU, regression(journal, **start))
        return journal.entries

    assert entries_of(max_steps=1)[1:5] == ["start", "evaluate start", "mode", "step"]
    assert "evaluate start" not in entries_of(resume="auto")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0] == {"epoch": -1, "val": 2.0}
    assert [(line["epoch"], line["val"]) for line in lines[1:]] == [(0, 1.0), (1, 1.0)]


def test_a_refused_checkpoint_changes_nothing(tmp_path):
    run(tmp_path, max_steps=3)
    journal = Journal()
    journal.refuses = True
    with pytest.raises(UserError, match="not mine"):
        train(arguments(tmp_path, resume="auto"), World(), CPU, regression(journal))
    assert journal.entries == ["made with lr 0.5 amp off"]


def test_the_arguments_given_stay_as_they_are(tmp_path):
    args = arguments(tmp_path)
    before = dict(vars(args))
    train(args, World(), CPU, regression(Journal()))
    assert vars(args) == before
    assert load_checkpoint(tmp_path / "checkpoint-00000004.pth")["args"] == before | dict(
        lr=0.5, amp="off", decoder="torchvision"
    )


def test_the_time_left_is_that_to_the_last_step(tmp_path, monkeypatch):
    left = []

    class Recorded(Progress):
        def report(self, steps_done):
            left.append(self.total_steps - steps_done)
            return super().report(steps_done)

    monkeypatch.setattr("pretrain.training.loop.Progress", Recorded)
    run(tmp_path, epochs=3, max_steps=3)
    assert left == [2, 1, 0]
    run(tmp_path, epochs=3, resume="auto")
    assert left[3:] == [2, 1, 0]


def test_a_checkpoint_in_an_epoch_knows_what_any_process_could_not_read(tmp_path):
    class WithAnother(World):
        def gather(self, value):
            return [value, {3}] if isinstance(value, set) else super().gather(value)

    def make_parts(*of_run):
        parts = regression(Journal())(*of_run)
        return replace(parts, corrupt=CorruptImages(parts.loader.dataset, 1.0))

    train(arguments(tmp_path, save_steps=1, max_steps=1), WithAnother(), CPU, make_parts)
    assert load_checkpoint(tmp_path / "checkpoint-00000001.pth")["corrupt"] == [3]


def test_weights_that_are_not_finite_are_neither_evaluated_nor_written(tmp_path):
    """An evaluation might write them as the best so far."""
    journal = Journal()

    def make_parts(*of_run):
        parts = regression(journal)(*of_run)
        return replace(parts, after_step=lambda _: nn.init.constant_(parts.model.bias, float("nan")))

    with pytest.raises(NonFiniteError, match=r"NaN in model\.bias after step 1, so no checkpoint is written"):
        train(arguments(tmp_path, accum_iter=4), World(), CPU, make_parts)
    assert journal.entries[-1] == "mode" and not list(tmp_path.glob("checkpoint*"))
