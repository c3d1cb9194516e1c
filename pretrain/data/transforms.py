"""From decoded images to pixels of the model's size: the crops and flips of pretraining, the centre crop of evaluation.

All take PIL images and uint8 tensors, draw the same crop for both, and give uint8 tensors `(C, H, W)`;
:func:`pretrain.data.pixels.images_on` normalises them in batches.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.data import create_transform
from timm.data.transforms import ResizeKeepRatio
from torchvision import transforms
from torchvision.transforms import functional

from pretrain.common.errors import UserError
from pretrain.data.pixels import Pixels, as_tensor, crop_and_resize, flip, height_and_width, normalisation, resize

__all__ = [
    "LargestCentre",
    "eval_transform",
    "evaluation_pixels",
    "evaluation_transform",
    "image_mode",
    "train_transform",
]


def train_transform(img_size: Sequence[int], crop_min: float = 0.2) -> Callable:
    """A random crop of at least `crop_min` of the image's area, resized, and a flip."""
    return transforms.Compose([RandomCrop(img_size, crop_min), random_flip, as_tensor])


class RandomCrop:
    """torchvision's `RandomResizedCrop`: the box depends on the image's size and torch's generator alone.

    The draws and the box are those of its `get_params`, which takes the logarithm of the proportions for each image.

    Args:
        size: height and width of the result.
        crop_min: smallest share of the image's area.
    """

    PROPORTIONS = (3 / 4, 4 / 3)
    ATTEMPTS = 10

    def __init__(self, size: Sequence[int], crop_min: float):
        self.size, self.scale = tuple(size), (crop_min, 1.0)
        self.log_proportions = torch.log(torch.tensor(self.PROPORTIONS)).tolist()

    def __call__(self, image: Pixels) -> Pixels:
        return crop_and_resize(image, self.box(*height_and_width(image)), self.size)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of a part of an image of this height and width."""
        for _ in range(self.ATTEMPTS):
            area = height * width * torch.empty(1).uniform_(*self.scale).item()
            proportions = torch.empty(1).uniform_(*self.log_proportions).exp_().item()
            w, h = round(math.sqrt(area * proportions)), round(math.sqrt(area / proportions))
            if 0 < w <= width and 0 < h <= height:
                top = int(torch.randint(height - h + 1, (1,)))
                return top, int(torch.randint(width - w + 1, (1,))), h, w
        # The largest centre of permitted proportions.
        low, high = self.PROPORTIONS
        w, h = min(width, round(height * high)), min(height, round(width / low))
        return (height - h) // 2, (width - w) // 2, h, w


def random_flip(image: Pixels) -> Pixels:
    """torchvision's `RandomHorizontalFlip`, in half of the cases."""
    return flip(image) if torch.rand(1).item() < 0.5 else image


def eval_transform(img_size: Sequence[int]) -> Callable:
    """The largest centre of the image that has the right proportions, resized."""
    return transforms.Compose([LargestCentre(img_size), Resized(img_size), as_tensor])


class LargestCentre:
    """Crops an image to its largest centre with the proportions of `size`, height and width.

    Pillow's `ImageOps.fit` crops at fractions of a pixel and so gives other pixels: held-out losses would differ from
    those of earlier runs.
    """

    def __init__(self, size: Sequence[int]):
        self.size = size

    def __call__(self, image: Pixels) -> Pixels:
        _, height, width = functional.get_dimensions(image)
        scale = min(height / self.size[0], width / self.size[1])
        return functional.center_crop(image, [max(1, round(side * scale)) for side in self.size])


class Resized:
    """:func:`pretrain.data.pixels.resize` as a step."""

    def __init__(self, size: Sequence[int]):
        self.size = size

    def __call__(self, image: Pixels) -> Pixels:
        return resize(image, self.size)


def image_mode(in_chans: int) -> str:
    """Raises UserError unless PIL has images of this many channels."""
    modes = {1: "L", 3: "RGB"}
    if in_chans not in modes:
        raise UserError(f"Image files can be read with 1 or 3 channels, not in_chans {in_chans}.")
    return modes[in_chans]


def evaluation_transform(img_size: Sequence[int], in_chans: int, crop_pct: float | None = None) -> Callable:
    """From a PIL image to a normalised tensor: bicubic resize to `img_size / crop_pct` and a centre crop.

    Args:
        crop_pct: by default 0.875 (224 of 256) as published, and 1 beyond 224 pixels and for images below 64, which
            have no border to lose.
    """
    mean, std = normalisation(in_chans)
    return _timm_evaluation(img_size, in_chans, crop_pct, mean=tuple(mean), std=tuple(std))


def evaluation_pixels(img_size: Sequence[int], crop_pct: float | None = None) -> Callable:
    """:func:`evaluation_transform` of PIL images or uint8 tensors, without the normalisation."""
    resizing, cropping, _ = _timm_evaluation(img_size, 3, crop_pct, use_prefetcher=True).transforms
    return transforms.Compose([TimmResize(resizing), cropping, as_tensor])


def _timm_evaluation(img_size: Sequence[int], in_chans: int, crop_pct: float | None, **options: Any) -> Any:
    if crop_pct is None:
        crop_pct = 0.875 if 64 <= max(img_size) <= 224 else 1.0
    size = (in_chans, img_size[0], img_size[1])
    transform = create_transform(size, interpolation="bicubic", crop_pct=crop_pct, **options)
    resizing = transform.transforms[0]
    if isinstance(resizing, ResizeKeepRatio):  # for sizes that are not square; timm before 1.0.31 makes it bilinear
        transform.transforms[0] = ResizeKeepRatio(resizing.size, interpolation="bicubic")
    return transform


class TimmResize:
    """A step of timm that resizes, for pixels of either kind: one of its own would make tensors float and back."""

    def __init__(self, step: transforms.Resize | ResizeKeepRatio):
        self.step = step

    def __call__(self, image: Pixels) -> Pixels:
        if isinstance(self.step, ResizeKeepRatio):
            return resize(image, self.step.get_params(image, self.step.size, self.step.longest))
        return resize(image, [self.step.size])
