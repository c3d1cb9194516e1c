"""One crop, flip and augmentation for all frames of a clip."""

import random

import numpy as np
import pytest
import torch

from pretrain.data.pixels import normalisation
from pretrain.data.video.transforms import (
    ClipTransform,
    SameForAllFrames,
    _policy,
    centre_crop,
    even_crop,
    finetune_clips,
    multi_scale_crop,
    train_clips,
)


def still(frames=4, height=40, width=60, channels=3):
    frame = np.random.default_rng(0).integers(0, 255, (height, width, channels), np.uint8)
    return np.stack([frame] * frames)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda channels: train_clips((32, 32), channels, True),
        lambda channels: finetune_clips((32, 48), channels, True, "rand-m7-n4-mstd0.5-inc1", 0.08, 0),
    ],
)
def test_all_frames_are_treated_alike(make, channels):
    transform, clips = make(channels), []
    for seed in range(6):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        clip = transform(still(channels=channels))
        assert clip.shape[:2] == (channels, 4) and clip.isfinite().all()
        assert torch.equal(clip[:, :1].expand_as(clip), clip)
        clips.append(clip)
    assert any(not torch.equal(clips[0], clip) for clip in clips[1:])


def test_nothing_but_normalisation_for_a_clip_of_the_right_size():
    frames = still(height=32, width=32)
    mean, std = normalisation(3)
    clip = ClipTransform((32, 32), 3, centre_crop)(frames)
    np.testing.assert_allclose(clip.permute(1, 2, 3, 0), (frames / 255 - mean) / std, atol=1e-6)


def test_even_crops_span_the_longer_side():
    assert [even_crop(i, 3, 40, 60, (32, 32)) for i in range(3)] == [(0, left, 40, 40) for left in (0, 10, 20)]
    assert [even_crop(i, 3, 60, 40, (32, 32)) for i in range(3)] == [(top, 0, 40, 40) for top in (0, 10, 20)]
    assert centre_crop(40, 60, (32, 32)) == (0, 10, 40, 40) and centre_crop(40, 60, (20, 40)) == (5, 0, 30, 60)


def test_even_crops_of_frames_a_pixel_wide_are_not_empty():
    assert even_crop(0, 1, 40, 1, (32, 64)) == (20, 0, 1, 1)


def test_scales_of_training_crops():
    crops = [multi_scale_crop(200, 300, (224, 224)) for _ in range(500)]
    sides = [200, 175, 150, 132]
    assert {h for _, _, h, _ in crops} == {w for *_, w in crops} == set(sides)
    assert max(abs(sides.index(h) - sides.index(w)) for *_, h, w in crops) == 1
    assert all(0 <= top <= 200 - h and 0 <= left <= 300 - w for top, left, h, w in crops)
    assert {(top, left) for top, left, h, w in crops if h == w == 200} == {(0, 25 * i) for i in range(5)}


def test_a_tube_is_erased():
    clip = finetune_clips((32, 32), 3, False, "none", 1.0, 1.0)(np.full((4, 32, 32, 3), 128, np.uint8))
    plain = ClipTransform((32, 32), 3, centre_crop)(np.full((4, 32, 32, 3), 128, np.uint8))
    erased = (clip != plain).all(0)
    assert erased.any() and torch.equal(erased[:1].expand_as(erased), erased)
    assert not torch.equal(clip[:, 0], clip[:, 1])


def test_policies():
    with pytest.raises(ValueError, match="--aa bogus is not a RandAugment policy"):
        _policy("bogus", 3)
    states = random.getstate()
    pictures = SameForAllFrames(lambda p: p + random.random())([0.0, 0.0])
    assert pictures[0] == pictures[1] and random.getstate() != states
