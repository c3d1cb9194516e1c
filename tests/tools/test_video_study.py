"""The study of video models: its commands are valid ones, and its table tells what they measured."""

import json

import pytest
from scripts import load_tool

from pretrain.training.args import parse_args
from pretrain.training.classification_args import parse_finetune_args, parse_knn_args


@pytest.fixture
def study(monkeypatch):
    """The script, whose jobs are noted and answered rather than run."""
    module = load_tool("video_study")
    jobs = []

    def answer(due, root, processes):
        jobs.extend(due)
        for i, job in enumerate(due):
            job.folder.mkdir(parents=True, exist_ok=True)
            job.done.write_text(json.dumps(job.facts | {"acc1": 50.0 + i, "cpu_seconds": 9, "command": []}))
        return [job.result() for job in due]

    monkeypatch.setattr(module, "run_jobs", answer)
    module.jobs = jobs
    return module


def test_commands_and_table(study, tmp_path, capsys):
    study.main([str(tmp_path / "out"), "--seeds", "3", "4", "--processes", "1"])
    parsers = {"pretrain": parse_args, "pretrain.finetune": parse_finetune_args, "pretrain.knn": parse_knn_args}
    commands = [[str(word) for word in job.command] for job in study.jobs]
    assert commands[0][0] == "datasets/make_moving_shapes.py" and len(commands) == 1 + 2 + 2 * 5
    parsed = {job.folder.name: parsers[c[1]](c[2:]) for job, c in zip(study.jobs[1:], commands[1:], strict=True)}
    assert all(args.seed == int(name[-1]) and args.num_frames == 8 for name, args in parsed.items())
    assert parsed["finetune_still_seed3"].sampling == "still" and not parsed["finetune_random_seed3"].init_weights
    assert parsed["knn_pretrained_seed4"].init_weights.endswith("pretrain_seed4/encoder.pth")
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert "| fine-tuning from pretraining | 55.5 | 53.0 to 58.0 | 9 |" in table
    facts = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(facts["results"]) == 12 and "torch" in facts


def test_results_are_read_and_checkpoints_removed(study, tmp_path):
    (tmp_path / "knn.json").write_text('{"acc1": 33.333}')
    (tmp_path / "log.jsonl").write_text('{"train_loss": 2, "val_loss": 3}\n{"train_loss": 1.00001, "val_loss": 2}\n')
    (tmp_path / "checkpoint-00000001.pth").touch()
    assert study.Accuracy("knn")(tmp_path) == {"acc1": 33.33}
    assert study._last_losses(tmp_path) == {"train_loss": 1.0, "val_loss": 2}
    assert not list(tmp_path.glob("*.pth"))
