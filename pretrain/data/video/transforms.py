"""From frames to clips: one crop, flip and augmentation for all frames, resized and normalised.

All take frames uint8 `(F, H, W, C)`, draw from the global generators, and give `(C, F, H, W)` as a model takes it.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp, posterize, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from pretrain.common.errors import UserError
from pretrain.data.augmentation import posterize_some
from pretrain.data.pixels import normalisation

__all__ = ["ClipTransform", "centre_crop", "even_crop", "finetune_clips", "multi_scale_crop", "train_clips"]

SCALES = (1.0, 0.875, 0.75, 0.66)
"""Sides of VideoMAE's crops, as shares of the largest crop's."""

_QUARTERS = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
"""Places of VideoMAE's crops, in quarters of what is left at the sides."""

Crop = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


class ClipTransform:
    """Crops and resizes all frames alike, and normalises them.

    Args:
        size: height and width of the clip in pixels.
        choose: from height and width of the frames to a crop.
        flip: flip a random half of the clips.
        augment: from a list of pictures to as many.
        erase: applied to the normalised clip `(C, F, H, W)`.
    """

    def __init__(
        self,
        size: Sequence[int],
        in_chans: int,
        choose: Callable[[int, int, Sequence[int]], Crop],
        flip: bool = False,
        augment: Callable[[list[Image.Image]], list[Image.Image]] | None = None,
        erase: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        self.size, self.choose, self.flip = tuple(size), choose, flip
        self.augment, self.erase = augment, erase
        # (C, 1, 1, 1)
        self.mean, self.std = (torch.tensor(v).view(-1, 1, 1, 1) for v in normalisation(in_chans))

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        if self.augment:
            frames = self._augmented(frames)
        _, H, W, _ = frames.shape
        top, left, height, width = self.choose(H, W, self.size)
        # (F, H, W, C) -> (F, C, H, W)
        clip = torch.from_numpy(np.ascontiguousarray(frames[:, top : top + height, left : left + width]))
        clip = clip.permute(0, 3, 1, 2)
        if (height, width) != self.size:
            clip = F.resize(clip, list(self.size), InterpolationMode.BILINEAR, antialias=True)
        if self.flip and torch.rand(()) < 0.5:
            clip = clip.flip(-1)
        # (F, C, H, W) -> (C, F, H, W)
        clip = (clip.permute(1, 0, 2, 3).float() / 255 - self.mean) / self.std
        return self.erase(clip) if self.erase else clip

    def _augmented(self, frames: np.ndarray) -> np.ndarray:
        assert self.augment is not None
        pictures = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in frames]
        augmented = np.stack([np.asarray(picture) for picture in self.augment(pictures)])
        return augmented if augmented.ndim == 4 else augmented[..., None]


def largest_crop(height: int, width: int, size: Sequence[int]) -> tuple[float, float]:
    """Height and width of the largest crop with the proportions of `size`."""
    scale = min(height / size[0], width / size[1])
    return size[0] * scale, size[1] * scale


def centre_crop(height: int, width: int, size: Sequence[int]) -> Crop:
    """The largest crop with the proportions of `size`, in the middle."""
    return even_crop(0, 1, height, width, size)


def even_crop(number: int, count: int, height: int, width: int, size: Sequence[int]) -> Crop:
    """One of `count` largest crops with the proportions of `size`, evenly spaced along the longer side."""
    h, w = (max(1, round(side)) for side in largest_crop(height, width, size))
    place = 0.5 if count == 1 else number / (count - 1)
    return round(place * (height - h)), round(place * (width - w)), h, w


def multi_scale_crop(height: int, width: int, size: Sequence[int]) -> Crop:
    """VideoMAE's (arXiv:2203.12602) and TSN's crop: sides of two neighbouring scales, at one of 13 places."""
    i, j = int(torch.randint(len(SCALES), ())), int(torch.randint(3, ())) - 1
    sides = zip(largest_crop(height, width, size), (i, min(max(i + j, 0), len(SCALES) - 1)), strict=True)
    h, w = (max(1, round(side * SCALES[k])) for side, k in sides)
    down, right = _QUARTERS[int(torch.randint(len(_QUARTERS), ()))]
    return (height - h) * down // 4, (width - w) * right // 4, h, w


def train_clips(size: Sequence[int], in_chans: int, flip: bool) -> ClipTransform:
    """Pretraining's: a crop at several scales, and a flip if asked for."""
    return ClipTransform(size, in_chans, multi_scale_crop, flip)


def finetune_clips(
    size: Sequence[int], in_chans: int, flip: bool, policy: str, crop_min: float, erasing: float
) -> ClipTransform:
    """Fine-tuning's: RandAugment, a random crop, a flip if asked for, random erasing; the same in all frames.

    Args:
        policy: timm's name of a RandAugment policy, or "none".
        crop_min: smallest share of the frame's area that a crop has.
        erasing: probability of random erasing.

    Raises:
        UserError: there is no such policy.
    """

    def random_crop(height: int, width: int, size: Sequence[int]) -> Crop:
        # get_params looks at the last two sides alone.
        crop = RandomResizedCrop.get_params(torch.empty(1, height, width), [crop_min, 1.0], [3 / 4, 4 / 3])
        return crop[0], crop[1], crop[2], crop[3]

    augment = None if policy == "none" else SameForAllFrames(_policy(policy, in_chans))
    erase = EraseTube(erasing) if erasing else None
    return ClipTransform(size, in_chans, random_crop, flip, augment, erase)


def _policy(name: str, in_chans: int) -> Any:
    mean = tuple(round(255 * value) for value in normalisation(in_chans)[0])
    try:
        policy = rand_augment_transform(name, {"img_mean": mean if in_chans > 1 else mean[0]})
    except (AssertionError, KeyError, ValueError) as e:
        raise UserError(
            f"--aa {name} is not a RandAugment policy of timm; give one such as rand-m7-n4-mstd0.5-inc1, or none."
        ) from e
    for op in policy.ops:
        if isinstance(op, AugmentOp) and op.aug_fn is posterize:
            op.aug_fn = posterize_some
    return policy


class SameForAllFrames:
    """Applies a policy that draws from Python's and NumPy's generators in the same way to every frame."""

    def __init__(self, policy: Callable[[Image.Image], Image.Image]):
        self.policy = policy

    def __call__(self, pictures: list[Image.Image]) -> list[Image.Image]:
        states = random.getstate(), np.random.get_state()
        augmented = []
        for picture in pictures:
            random.setstate(states[0])
            np.random.set_state(states[1])
            augmented.append(self.policy(picture))
        return augmented


class EraseTube:
    """Random erasing of the same rectangle in every frame, with noise for each pixel."""

    def __init__(self, probability: float):
        self.erase = RandomErasing(probability, mode="pixel", device="cpu")

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        # timm takes (C, H, W), and erases as many channels as there are.
        return self.erase(clip.flatten(0, 1)).view(clip.shape)
