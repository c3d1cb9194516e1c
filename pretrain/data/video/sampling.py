"""Which frames make a clip: every n-th from a random place, one of each segment, or one frame repeated."""

from dataclasses import dataclass

import numpy as np
import torch

from pretrain.common.errors import UserError
from pretrain.names import SAMPLINGS

__all__ = ["FrameSampler"]


@dataclass(frozen=True)
class FrameSampler:
    """Chooses the frames of a clip.

    Attributes:
        num_frames: frames of a clip.
        sampling: "dense" takes every `frame_step`-th frame, as for Kinetics; "segments" cuts the video into as many
            parts of equal length as a clip has frames and takes one of each, as for Something-Something; "still"
            repeats one frame, which shows what a model makes of motion.
        frame_step: of "dense".
    """

    num_frames: int
    sampling: str = "dense"
    frame_step: int = 4

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise UserError(f"--sampling must be one of {', '.join(SAMPLINGS)}, got {self.sampling!r}.")
        if self.frame_step < 1:
            raise UserError(f"--frame_step must be at least 1, got {self.frame_step}.")

    def is_short(self, length: int) -> bool:
        """Whether a video of so many frames cannot fill a clip, so that its last frame is repeated."""
        return length < {"dense": self._span, "segments": self.num_frames, "still": 1}[self.sampling]

    @property
    def _span(self) -> int:
        """Frames from the first to the last of a dense clip."""
        return (self.num_frames - 1) * self.frame_step + 1

    def random(self, length: int) -> list[int]:
        """Indices of a training clip; draws from torch's global generator."""
        if self.sampling == "segments":
            return self._in_segments(length, torch.rand(self.num_frames, dtype=torch.float64).numpy())
        return self._from(torch.rand((), dtype=torch.float64).item(), length)

    def even(self, length: int, clip: int = 0, clips: int = 1) -> list[int]:
        """Indices of a test clip: that of `clips` evenly spaced ones; a single one is in the middle."""
        place = (clip + 0.5) / clips
        if self.sampling == "segments":
            return self._in_segments(length, np.full(self.num_frames, place))
        if self.sampling == "dense" and clips > 1:
            place = clip / (clips - 1)
        return self._from(place, length)

    def _from(self, place: float, length: int) -> list[int]:
        """Indices of the dense or still clip at a place from 0, the earliest, to 1, the latest possible."""
        if self.sampling == "still":
            return [min(int(place * length), length - 1)] * self.num_frames
        latest = max(length - self._span, 0)
        start = min(int(place * (latest + 1)), latest)
        return np.minimum(start + np.arange(self.num_frames) * self.frame_step, length - 1).tolist()

    def _in_segments(self, length: int, places: np.ndarray) -> list[int]:
        """Indices at places, from 0 to 1, of the segments."""
        if length < self.num_frames:
            return np.minimum(np.arange(self.num_frames), length - 1).tolist()
        indices = (np.arange(self.num_frames) + places) * length / self.num_frames
        return np.minimum(indices.astype(int), length - 1).tolist()
