"""The training loader gives the same batches wherever a run begins, however many workers read them."""

import itertools
import pickle
import random

import numpy as np
import pytest
import torch

from lazyrun.data.loader import TrainingBatchSampler, build_train_loader, seeded
from pretrain.common.errors import UserError

DICTS = [{"index": i, "width": 40 if i % 3 else 20, "height": 30} for i in range(10)]


def augment(sample: dict) -> dict:
    return sample | {"draws": (random.random(), np.random.rand(), torch.rand(1).item())}


def take(loader, count: int) -> list:
    return list(itertools.islice(loader, count))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("grouping", [True, False])
def test_resumes_in_place(workers, grouping):
    arguments = dict(mapper=augment, total_batch_size=2, aspect_ratio_grouping=grouping, seed=3)
    uninterrupted = take(build_train_loader(DICTS, **arguments), 12)
    resumed = build_train_loader(DICTS, **arguments, num_workers=workers)
    resumed.batch_sampler.start = 7
    assert take(resumed, 5) == uninterrupted[7:]


def test_workers_need_not_be_forked():
    """Where they are spawned, they get pickled copies of what a loader is made of."""
    loader = build_train_loader(DICTS, mapper=lambda d: d, total_batch_size=2)
    spawned = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn, loader.worker_init_fn)))[0]
    assert spawned[3, 0] == loader.dataset[3, 0]


def test_each_pass_is_a_new_shuffle_of_all_samples():
    sampler = TrainingBatchSampler(size=6, batch_size=3, seed=0)
    indices = [index for batch in itertools.islice(sampler, 4) for index, _ in batch]
    assert sorted(indices[:6]) == sorted(indices[6:]) == list(range(6))
    assert indices[:6] != indices[6:]


def test_groups_are_not_mixed():
    groups = [i % 2 for i in range(9)]
    batches = itertools.islice(TrainingBatchSampler(9, 3, seed=1, groups=groups), 50)
    assert all(len({groups[index] for index, _ in batch}) == 1 for batch in batches)


def test_processes_share_one_stream(monkeypatch):
    whole = [draw for batch in itertools.islice(TrainingBatchSampler(7, 4, seed=2), 6) for draw in batch]
    parts = []
    for rank in range(2):
        monkeypatch.setattr("lazyrun.data.loader.comm.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("lazyrun.data.loader.comm.get_world_size", lambda: 2)
        parts += [draw for batch in itertools.islice(TrainingBatchSampler(7, 2, seed=2), 6) for draw in batch]
    assert sorted(parts, key=lambda draw: draw[1]) == whole


def test_skipped_samples_are_replaced():
    loader = build_train_loader(DICTS, mapper=lambda d: d if d["index"] % 2 else None, total_batch_size=2)
    assert all(sample["index"] % 2 for batch in take(loader, 8) for sample in batch)


def test_mapper_that_skips_everything_is_an_error():
    with pytest.raises(UserError, match="skipped 10 samples in a row"):
        take(build_train_loader(DICTS, mapper=lambda _: None, total_batch_size=1), 1)


def test_batch_size_must_divide(monkeypatch):
    monkeypatch.setattr("lazyrun.data.loader.comm.get_world_size", lambda: 2)
    with pytest.raises(UserError, match="total_batch_size=3 is not a positive multiple of the 2"):
        build_train_loader(DICTS, mapper=augment, total_batch_size=3)


def test_seeded_restores_generators():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with seeded(1, 2):
        first = augment({})
    with seeded(1, 2):
        assert augment({}) == first
    with seeded(1, 3):
        assert augment({}) != first
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_numbers_of_a_seed_stay():
    """They are part of the recipe: a run goes on with the same augmentations in a later version."""
    with seeded(3, 7):
        assert (random.random(), np.random.rand()) == (0.4133092135401061, 0.6021061499457157)
        assert torch.rand(1, dtype=torch.float64).item() == 0.852321141369652
    with seeded(-1, 2):  # taken as 2**64 - 1
        assert (random.random(), np.random.rand()) == (0.35750873331866173, 0.8485348448701242)


def test_rare_samples_come_more_often_in_each_pass():
    factors = torch.tensor([1.0, 2.0, 1.5, 3.25])
    sampler = TrainingBatchSampler(4, 1, seed=0, repeat_factors=factors)
    counts = torch.bincount(torch.tensor([batch[0][0] for batch in itertools.islice(sampler, 7750)]), minlength=4)
    torch.testing.assert_close(counts / counts[0], factors, atol=0.05, rtol=0)


def test_repeat_threshold_and_resuming():
    dicts = [d | {"annotations": [{"category_id": int(d["index"] == 0)}]} for d in DICTS]
    arguments = dict(mapper=augment, total_batch_size=2, repeat_threshold=0.4, seed=3)
    uninterrupted = take(build_train_loader(dicts, **arguments), 30)
    seen = [sample["index"] for batch in uninterrupted for sample in batch]
    assert seen.count(0) > 1.5 * seen.count(1)  # in a tenth of the images: √(0.4 / 0.1) = 2 times as often
    resumed = build_train_loader(dicts, **arguments)
    resumed.batch_sampler.start = 17
    assert take(resumed, 13) == uninterrupted[17:]
