"""From images to tensors: the crops, flips and normalisation of pretraining, and the centre crop of evaluation."""

from collections.abc import Callable, Sequence

from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from pretrain.common.errors import UserError

__all__ = ["LargestCentre", "eval_transform", "evaluation_transform", "image_mode", "normalisation", "train_transform"]


def normalisation(in_chans: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel: ImageNet's, averaged for other than three channels."""
    mean, std = list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD)
    return (mean, std) if in_chans == 3 else ([sum(mean) / 3] * in_chans, [sum(std) / 3] * in_chans)


def train_transform(img_size: Sequence[int], in_chans: int, crop_min: float = 0.2) -> Callable:
    """A random crop of at least `crop_min` of the image's area, resized, and a flip."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(img_size, scale=(crop_min, 1.0), interpolation=InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(*normalisation(in_chans)),
        ]
    )


def eval_transform(img_size: Sequence[int], in_chans: int) -> Callable:
    """The largest centre of the image that has the right proportions, resized."""
    return transforms.Compose(
        [
            LargestCentre(img_size),
            transforms.Resize(img_size, interpolation=InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(*normalisation(in_chans)),
        ]
    )


class LargestCentre:
    """Crops an image to its largest centre with the proportions of `size`, height and width.

    Pillow's `ImageOps.fit` crops at fractions of a pixel and so gives other pixels: held-out losses would differ from
    those of earlier runs.
    """

    def __init__(self, size: Sequence[int]):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = min(image.height / self.size[0], image.width / self.size[1])
        return transforms.functional.center_crop(image, [round(side * scale) for side in self.size])


def image_mode(in_chans: int) -> str:
    """Raises UserError unless PIL has images of this many channels."""
    modes = {1: "L", 3: "RGB"}
    if in_chans not in modes:
        raise UserError(f"Image files can be read with 1 or 3 channels, not in_chans {in_chans}.")
    return modes[in_chans]


def evaluation_transform(img_size: Sequence[int], in_chans: int, crop_pct: float | None = None) -> Callable:
    """Bicubic resize to `img_size / crop_pct` and a centre crop.

    Args:
        crop_pct: by default 0.875 (224 of 256) as published, and 1 beyond 224 pixels and for images below 64, which
            have no border to lose.
    """
    if crop_pct is None:
        crop_pct = 0.875 if 64 <= max(img_size) <= 224 else 1.0
    mean, std = normalisation(in_chans)
    size = (in_chans, img_size[0], img_size[1])
    return create_transform(size, interpolation="bicubic", mean=tuple(mean), std=tuple(std), crop_pct=crop_pct)
