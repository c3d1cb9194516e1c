"""The learning rate against written values."""

import pytest

from pretrain.common.distributed import World
from pretrain.data.datasets import EpochDataset
from pretrain.data.samplers import train_loader
from pretrain.training.schedule import effective_batch_size, learning_rate, scaled_learning_rate, steps_per_epoch

RECIPE = dict(lr=2.4e-3, min_lr=0.0, warmup_epochs=40, epochs=1600)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 0.0), (10, 0.6e-3), (39.5, 2.37e-3), (40, 2.4e-3), (820, 1.2e-3), (430, 2.0485e-3), (1600, 0.0), (1700, 0.0)],
)
def test_warmup_and_half_cosine(epoch, expected):
    assert learning_rate(epoch, **RECIPE) == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_minimum_and_no_warmup():
    config = dict(lr=1.0, min_lr=0.2, warmup_epochs=0, epochs=4)
    assert [learning_rate(e, **config) for e in (0, 2, 4)] == pytest.approx([1.0, 0.6, 0.2])


def test_linear_scaling():
    assert scaled_learning_rate(1.5e-4, effective_batch_size(64, 8, 8)) == pytest.approx(2.4e-3)


@pytest.mark.parametrize(
    ("images", "batch_size", "accum_iter", "processes", "expected"),
    [(1_281_167, 128, 1, 8, 1251), (1_281_167, 128, 4, 8, 313), (17, 4, 3, 2, 1), (16, 4, 2, 1, 2), (23, 4, 2, 1, 3)],
)
def test_steps_of_an_epoch_are_those_of_its_whole_batches(images, batch_size, accum_iter, processes, expected):
    class Images(EpochDataset):
        seed = 0

        def __len__(self):
            return images

    assert steps_per_epoch(images, batch_size, accum_iter, processes) == expected
    batches = len(train_loader(Images(), batch_size, 0, World(size=processes), pin_memory=False))
    assert expected == -(-batches // accum_iter)
