"""The arms of the study of photos with class labels: their commands, and the data they need."""

import pytest

from convmae_det.study import clothing
from pretrain.common.errors import UserError
from pretrain.training.args import parse_args
from pretrain.training.classification_args import parse_finetune_args, parse_knn_args, parse_linprobe_args

PARSERS = {"pretrain": parse_args, "pretrain.finetune": parse_finetune_args}
PARSERS |= {"pretrain.knn": parse_knn_args, "pretrain.linprobe": parse_linprobe_args}


@pytest.fixture
def ran(monkeypatch):
    """The jobs that would be run; the middle one of the learning rates is always the best."""
    jobs = []

    def note(new, *_):
        jobs.extend(new)
        return [{**job.facts, "acc1": 50 - abs(job.facts.get("lr", 0) - 1e-3)} for job in new]

    monkeypatch.setattr(clothing, "run_jobs", note)
    return jobs


def photos(folder, count):
    for split in ("train", "val"):
        for name in ("hat", "shoe"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count // 2):
                (folder / split / name / f"{i}.jpg").touch()
    return folder


def test_every_command_is_one_of_the_package_and_has_a_step_to_take(ran, tmp_path):
    clothing.run_clothing(photos(tmp_path / "data", 800), tmp_path / "out", tmp_path, 1, [0, 1])
    assert len({job.folder for job in ran}) == len(ran) == 2 + 9 + 3 * (2 + 2 + 2 + 1)
    rates = set()
    for job in ran:
        _, module, *argv = map(str, job.command)
        args = PARSERS[module](argv)
        if module == "pretrain.finetune":
            of_all = 800 * 0.8 if "choose" in job.folder.name else 800
            assert of_all * args.label_fraction >= args.batch_size
            rates |= set() if "choose" in job.folder.name else {args.lr}
    assert rates == {1e-3}


def test_too_few_photos_are_refused_at_the_start(ran, tmp_path):
    with pytest.raises(UserError, match=r"holds 40 photos, of which 1% do not fill a batch of 8; .* needs 800\."):
        clothing.run_clothing(photos(tmp_path / "data", 40), tmp_path / "out", tmp_path, 1, [0])
    with pytest.raises(UserError, match="has no folders train and val"):
        clothing.run_clothing(tmp_path, tmp_path / "out", tmp_path, 1, [0])
    assert ran == []
