"""Clips with randomness that is a function of (seed, epoch, index) alone, and what was peculiar about their videos."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from pretrain.common.distributed import World
from pretrain.common.seeding import seeded_everywhere
from pretrain.data.datasets import Sample, SeededImages
from pretrain.data.video.files import open_video
from pretrain.data.video.sampling import FrameSampler
from pretrain.data.video.transforms import ClipTransform, even_crop

__all__ = ["ClipNotes", "EvenViews", "LabelledClip", "LabelledClips", "MaskedClip", "MaskedClips", "RandomClip"]

logger = logging.getLogger(__name__)

TRAITS = {
    "short": "too short for a clip; the last frame is repeated",
    "rotated": "turned as the container asks",
    "variable_rate": "of variable frame rate; frames are taken at even times",
}


class MaskedClip(NamedTuple):
    """A clip and its tubes' noise, or a batch of both.

    Attributes:
        image: the clip `(C, F, H, W)`, normalised.
        noise: `(L,)` in [0, 1).
        unreadable: indices of videos that could not be read and were replaced, padded with -1.
        video: its index.
        traits: `(3,)` booleans, which of :data:`TRAITS` the video has.
    """

    image: torch.Tensor
    noise: torch.Tensor
    unreadable: torch.Tensor
    video: torch.Tensor
    traits: torch.Tensor


class LabelledClip(NamedTuple):
    """A clip and its class, or a batch of both; in a test of several views `image` is `(views, C, F, H, W)`.

    Attributes:
        label: index of the class, int64.
        image, unreadable, video, traits: as in :class:`MaskedClip`.
    """

    image: torch.Tensor
    label: torch.Tensor
    unreadable: torch.Tensor
    video: torch.Tensor
    traits: torch.Tensor


class FramesRead(NamedTuple):
    """What was read of a video: frames uint8 `(N, H, W, C)`, its label, its index, its traits."""

    frames: np.ndarray
    label: int
    video: int
    traits: list[bool]


class Views(Protocol):
    """Which frames of a video make a sample, and how."""

    sampler: FrameSampler

    def indices(self, length: int) -> list[int]:
        """Of the frames of a video with so many."""

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """From these frames to a clip `(C, F, H, W)`, or to several `(views, C, F, H, W)`."""


class RandomClip:
    """A training clip: random frames, transformed at random."""

    def __init__(self, sampler: FrameSampler, transform: ClipTransform):
        self.sampler, self.transform = sampler, transform

    def indices(self, length: int) -> list[int]:
        return self.sampler.random(length)

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        return self.transform(frames)


class EvenViews:
    """Test clips: evenly spaced in time and along the longer side of the picture.

    Args:
        size: height and width of a clip in pixels.
        clips, crops: their numbers; one of each gives one clip, more give `clips * crops` of them.
    """

    def __init__(self, sampler: FrameSampler, size: Sequence[int], in_chans: int, clips: int = 1, crops: int = 1):
        self.sampler, self.clips = sampler, clips
        self.transforms = [ClipTransform(size, in_chans, partial(even_crop, i, crops)) for i in range(crops)]

    def indices(self, length: int) -> list[int]:
        return [index for i in range(self.clips) for index in self.sampler.even(length, i, self.clips)]

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        clips = np.split(frames, self.clips)
        views = torch.stack([transform(clip) for clip in clips for transform in self.transforms])
        return views[0] if len(views) == 1 else views


class SeededClips(SeededImages[Sample]):
    """Clips of a reader's videos, indexed by `(epoch, index)`; a video that cannot be read is replaced by the next.

    Args:
        views: may draw from any of the global generators.
        in_chans: 3, or 1 for grey.
        reader, seed, replace: as in :class:`~pretrain.data.datasets.SeededImages`.
    """

    noun = "video"
    seeded: Callable[..., AbstractContextManager[None]] = staticmethod(seeded_everywhere)

    def __init__(self, reader: Any, views: Views, seed: int, in_chans: int, replace: bool = True):
        self.reader, self.views = reader, views
        self.seed, self.in_chans, self.replace = seed, in_chans, replace

    def _read(self, index: int) -> FramesRead:
        path, label = self.reader[index]
        with open_video(path) as video:
            frames = video.read(self.views.indices(video.num_frames), self.in_chans)
            is_short = self.views.sampler.is_short(video.num_frames)
            return FramesRead(frames, label, index, [is_short, video.is_rotated, video.is_variable])


class MaskedClips(SeededClips[MaskedClip]):
    """Clips for pretraining, each with its tubes' noise.

    Args:
        noise_size: length L of the noise, the number of patches of a time slot.
    """

    def __init__(self, reader: Any, views: Views, noise_size: int, seed: int, in_chans: int):
        super().__init__(reader, views, seed, in_chans)
        self.noise_size = noise_size

    def _finish(self, read: FramesRead, unreadable: torch.Tensor) -> MaskedClip:
        clip, noise = self.views(read.frames), torch.rand(self.noise_size)
        return MaskedClip(clip, noise, unreadable, torch.tensor(read.video), torch.tensor(read.traits))


class LabelledClips(SeededClips[LabelledClip]):
    """Clips with the indices of their classes."""

    def _finish(self, read: FramesRead, unreadable: torch.Tensor) -> LabelledClip:
        clip, label = self.views(read.frames), torch.tensor(read.label)
        return LabelledClip(clip, label, unreadable, torch.tensor(read.video), torch.tensor(read.traits))


class ClipNotes:
    """Counts videos with peculiar traits, and names the first of each kind; a checkpoint keeps the counts.

    Args:
        dataset: of the videos.
    """

    def __init__(self, dataset: SeededClips, world: World):
        self.dataset, self.world = dataset, world
        self.found: dict[str, set[int]] = {trait: set() for trait in TRAITS}

    def add(self, batch: MaskedClip | LabelledClip) -> None:
        """Takes note of a batch of this process."""
        for column, (trait, meaning) in enumerate(TRAITS.items()):
            indices = batch.video[batch.traits[:, column]].tolist()
            if indices and not self.found[trait]:
                name = self.dataset.name(indices[0])
                logger.warning("%s is %s. Others like it are only counted, in log.jsonl.", name, meaning)
            self.found[trait].update(indices)

    def counts(self) -> dict[str, int]:
        """How many videos of each trait all processes have met; every process calls it."""
        for trait, indices in self.found.items():
            self.found[trait] = set().union(*self.world.gather(indices))
        return {f"{trait}_videos": len(indices) for trait, indices in self.found.items() if indices}

    def state_dict(self) -> dict[str, Any]:
        return {"clip_notes": {trait: sorted(indices) for trait, indices in self.found.items()}}

    def check(self, state: Mapping[str, Any]) -> None:
        """A checkpoint without notes does as well."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        notes = state.get("clip_notes", {})
        self.found = {trait: set(notes.get(trait, ())) for trait in TRAITS}
