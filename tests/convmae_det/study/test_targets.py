"""The arms of the study of targets: the commands they run, in order, and what of them is kept."""

import pytest

from convmae_det.study import targets
from pretrain.common.errors import UserError
from pretrain.training.args import parse_args
from pretrain.training.classification_args import parse_knn_args, parse_linprobe_args

PARSERS = {"pretrain": parse_args, "pretrain.knn": parse_knn_args, "pretrain.linprobe": parse_linprobe_args}


@pytest.fixture
def ran(monkeypatch):
    """The jobs of each round, none of which is run."""
    rounds = []

    def note(jobs, *_):
        rounds.append(list(jobs))
        return [{**job.facts, "cpu_seconds": 7} for job in jobs]

    monkeypatch.setattr(targets, "run_jobs", note)
    return rounds


def test_every_command_is_one_of_the_package(ran, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    targets.run_targets(tmp_path, tmp_path / "out", tmp_path, 1, [0, 1])
    (teacher,), pretraining, measuring = ran
    assert [(j.facts["method"], j.facts["seed"]) for j in pretraining] == [
        (method, seed) for method in ("rgb", "ema", "mimic") for seed in (0, 1)
    ]
    assert len(measuring) == 2 * 2 * 4  # measures, seeds, methods with random weights
    assert {j.facts["pretraining_seconds"] for j in measuring} == {0, 7}
    jobs = [teacher, *pretraining, *measuring]
    assert len({job.folder for job in jobs}) == len(jobs)
    seen = {}
    for job in jobs:
        flag, module, *argv = map(str, job.command)
        args = PARSERS[module](argv)
        assert flag == "-m" and args.output_dir == str(job.folder)
        seen[job.folder.name] = args
    assert seen["ema_seed1"].targets == ["rgb", "ema"] and seen["ema_seed1"].seed == 1
    assert seen["mimic_seed0"].mimic == f"teacher={tmp_path}/out/teacher/encoder.pth"
    assert seen["teacher"].seed not in (0, 1)
    assert seen["mimic_seed0_knn"].init_weights.endswith("mimic_seed0/encoder.pth")


def test_data_without_splits(ran, tmp_path):
    with pytest.raises(UserError, match="has no folders train and val"):
        targets.run_targets(tmp_path, tmp_path / "out", tmp_path, 1, [0])
    assert ran == []
