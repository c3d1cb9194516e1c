"""How training images are augmented in fine-tuning: timm's transform, with a policy that no Pillow refuses."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, posterize
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms

from pretrain.common.errors import UserError
from pretrain.data.pixels import Pixels, as_pil, as_tensor, crop_and_resize, normalisation, normalise

__all__ = ["finetune_transform", "posterize_to_some_bits"]


def finetune_transform(
    img_size: Sequence[int],
    in_chans: int,
    policy: str = "rand-m9-mstd0.5-inc1",
    crop_min: float = 0.08,
    color_jitter: float = 0.0,
    erasing: float = 0.25,
) -> Callable[[Pixels], torch.Tensor]:
    """Random crop, flip, AutoAugment and random erasing; the crop's box is the same for PIL images and tensors.

    Random erasing puts in normal noise, of which many values are no pixels. So with `erasing` the result is normalised,
    and otherwise pixels, uint8.

    Args:
        policy: timm's name of an AutoAugment, RandAugment, AugMix or 3-Augment policy, or "none".
        crop_min: smallest share of the image's area that a crop has.
        color_jitter: used without a policy; 0 for none.
        erasing: probability of random erasing.

    Raises:
        UserError: there is no such policy.
    """
    mean, std = normalisation(in_chans)
    jitter: Any = color_jitter or None  # 0 would still be a step of the transform
    try:
        geometry, colours, final = create_transform(
            (in_chans, img_size[0], img_size[1]),
            is_training=True,
            scale=(crop_min, 1.0),
            color_jitter=jitter,
            auto_augment=None if policy == "none" else policy,
            interpolation="bicubic",
            mean=tuple(mean),
            std=tuple(std),
            re_prob=erasing,
            re_mode="pixel",
            separate=True,
        )
    except (AssertionError, KeyError, ValueError) as e:
        raise UserError(
            f"--aa {policy} is not an augmentation policy of timm; give one such as rand-m9-mstd0.5-inc1, "
            "augmix-m3-w3, original or 3a, or none."
        ) from e
    posterize_to_some_bits(colours.transforms)
    crop, *others = geometry.transforms
    steps = [TimmCrop(crop), *others, *([as_pil, *colours.transforms] if colours.transforms else []), as_tensor]
    _, _, *erase = final.transforms  # after the conversion to a tensor and the normalisation
    return transforms.Compose([*steps, normalise, *erase] if erase else steps)


class TimmCrop:
    """timm's random crop, whose box depends on the image's size and Python's generator alone, for tensors as well."""

    def __init__(self, crop: RandomResizedCropAndInterpolation):
        self.crop = crop

    def __call__(self, image: Pixels) -> Pixels:
        return crop_and_resize(image, self.crop.get_params(image, self.crop.scale, self.crop.ratio), self.crop.size)


def posterize_to_some_bits(steps: Iterable[Any]) -> None:
    """Puts :func:`posterize_some` in the place of timm's posterize in the policies among the steps of a transform."""
    for step in steps:
        for op in _operations(step):
            if op.aug_fn is posterize:
                op.aug_fn = posterize_some


def posterize_some(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """timm's posterize, keeping at least one bit: of none its strongest level makes a black image, which Pillow 13
    refuses."""
    return posterize(image, max(1, bits), **options)


def _operations(step: Any) -> list[AugmentOp]:
    """The operations of a step of the transform; none unless it is a policy."""
    groups = getattr(step, "policy", None) or [getattr(step, "ops", ())]
    return [op for group in groups for op in group if isinstance(op, AugmentOp)]
