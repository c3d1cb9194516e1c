"""Which frames make a clip."""

import pytest
import torch

from pretrain.data.video.sampling import FrameSampler


def test_dense_clips():
    sampler = FrameSampler(4, "dense", 3)  # frames 0 3 6 9: ten of them
    assert sampler.even(10) == [0, 3, 6, 9] and sampler.even(14) == [2, 5, 8, 11]
    assert [sampler.even(30, i, 3)[0] for i in range(3)] == [0, 10, 20]
    starts = {tuple(sampler.random(12)) for _ in range(100)}
    assert starts == {(i, i + 3, i + 6, i + 9) for i in range(3)}
    assert sampler.is_short(9) and not sampler.is_short(10)
    assert sampler.even(8) == sampler.random(8) == [0, 3, 6, 7] and sampler.random(1) == [0] * 4


def test_one_frame_of_each_segment():
    sampler = FrameSampler(4, "segments")
    assert sampler.even(40) == [5, 15, 25, 35]
    assert [sampler.even(40, i, 2) for i in range(2)] == [[2, 12, 22, 32], [7, 17, 27, 37]]
    drawn = torch.tensor([sampler.random(10) for _ in range(300)])
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[0, 1, 2], [2, 3, 4], [5, 6, 7], [7, 8, 9]]
    assert sampler.is_short(3) and sampler.even(3) == [0, 1, 2, 2] and sampler.even(4) == [0, 1, 2, 3]


def test_one_frame_repeated():
    sampler = FrameSampler(4, "still")
    assert sampler.even(9) == [4] * 4 and not sampler.is_short(1)
    drawn = [sampler.random(3) for _ in range(100)]
    assert {tuple(indices) for indices in drawn} == {(i,) * 4 for i in range(3)}


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(sampling="sparse"), "must be one of dense, segments, still, got 'sparse'"), (dict(frame_step=0), "got 0")],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        FrameSampler(4, **options)
