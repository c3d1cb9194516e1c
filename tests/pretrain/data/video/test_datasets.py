"""Clips are a function of seed, epoch and index; unreadable videos are replaced, peculiar ones counted."""

import logging

import pytest
import torch
from clips import turn, write_at_times, write_numbered

from pretrain.common.distributed import World
from pretrain.data.datasets import CorruptImages
from pretrain.data.samplers import train_loader
from pretrain.data.video.datasets import ClipNotes, EvenViews, LabelledClips, MaskedClips, RandomClip
from pretrain.data.video.readers import open_videos
from pretrain.data.video.sampling import FrameSampler
from pretrain.data.video.transforms import finetune_clips, train_clips

pytest.importorskip("av")
SAMPLER = FrameSampler(4, "dense", 2)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Six videos: one a text file, one short, one turned, one of variable rate."""
    root = tmp_path_factory.mktemp("videos")
    for i in (0, 5):
        write_numbered(root / f"{i}.mp4", 12)
    (root / "1.mp4").write_text("no video")
    write_numbered(root / "2.mp4", 3)
    turn(write_numbered(root / "3.mp4", 12), 90)
    write_at_times(root / "4.mkv", [0, 40, 80, 120, 160, 200, 900, 940, 980])
    return root


def masked(videos, seed=0):
    return MaskedClips(open_videos(str(videos)), RandomClip(SAMPLER, train_clips((32, 32), 3, True)), 4, seed, 3)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_sample_is_a_function_of_seed_epoch_and_index(videos):
    clips = masked(videos)
    sample = clips[1, 5]
    torch.rand(3)
    assert equal(clips[1, 5], sample) and sample.image.shape == (3, 4, 32, 32)
    assert not torch.equal(clips[2, 5].noise, sample.noise)
    assert not torch.equal(masked(videos, 1)[1, 5].noise, sample.noise)
    finetune = finetune_clips((32, 32), 3, True, "rand-m7-n4-mstd0.5-inc1", 0.08, 0.25)
    labelled = LabelledClips(clips.reader, RandomClip(SAMPLER, finetune), 0, 3)
    assert equal(labelled[0, 5], labelled[0, 5]) and not torch.equal(labelled[0, 5].image, labelled[1, 5].image)


def test_workers_make_no_difference(videos):
    loaders = [train_loader(masked(videos), 2, workers, World(), False) for workers in (0, 2)]
    for one, other in zip(*loaders, strict=True):
        assert equal(one, other)


def test_unreadable_videos_are_replaced_and_named(videos):
    clips = masked(videos)
    sample = clips[0, 1]
    assert sample.unreadable[:2].tolist() == [1, -1] and sample.video == 2
    corrupt = CorruptImages(clips, 0.2)
    assert [name[-5:] for name in corrupt.add([1])] == ["1.mp4"]
    with pytest.raises(ValueError, match=r"1 of 6 videos cannot be read, more than --max_corrupt 0.1 allows"):
        CorruptImages(clips, 0.1).add([1])
    alone = LabelledClips(clips.reader, EvenViews(SAMPLER, (32, 32), 3), 0, 3, replace=False)
    with pytest.raises(ValueError, match=r"None of 1 video\(s\) from .*1.mp4 on can be read: are these video files"):
        alone[0, 1]


def test_peculiar_videos_are_counted_and_the_first_is_named(videos, caplog):
    caplog.set_level(logging.WARNING)
    clips = masked(videos)
    notes = ClipNotes(clips, World())
    loader = train_loader(clips, 6, 0, World(), False)
    for epoch in (0, 1):
        loader.sampler.set_position(epoch)
        notes.add(next(iter(loader)))
    assert notes.counts() == {"short_videos": 1, "rotated_videos": 1, "variable_rate_videos": 1}
    assert len(caplog.records) == 3 and "2.mp4 is too short for a clip; the last frame is repeated" in caplog.text
    resumed = ClipNotes(clips, World())
    resumed.load_state_dict(notes.state_dict())
    assert resumed.found == notes.found


def test_views_of_a_test(videos):
    reader = open_videos(str(videos / "0.mp4"))
    one = LabelledClips(reader, EvenViews(SAMPLER, (32, 32), 3), 0, 3)[0, 0].image
    several = LabelledClips(reader, EvenViews(SAMPLER, (16, 32), 3, clips=3, crops=2), 0, 3)[0, 0].image
    assert one.shape == (3, 4, 32, 32) and several.shape == (6, 3, 4, 16, 32)
    # Clips begin at frames 0, 2 or 3 and 5; the lower crop has no white quarter.
    assert (several[::2, :, 0].mean((1, 2, 3)) > several[1::2, :, 0].mean((1, 2, 3))).all()
    brightness = several[1::2, 0, 0].mean((1, 2))
    assert brightness[0] < brightness[1] < brightness[2]
    assert torch.equal(one, LabelledClips(reader, EvenViews(SAMPLER, (32, 32), 3), 1, 3)[5, 0].image)
