"""Pixels: from image files to uint8, resized there, and normalised once they are a batch on the device.

With the decoder "torchvision" images are tensors, which are resized several times as fast as PIL images; torchvision
decodes JPEG, and Pillow the rest. Both decode the same pixels of a JPEG file, so what differs from the decoder "pil" is
the rounding of the resizing alone.
"""

import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.nn.functional import interpolate
from torchvision import io as torchvision_io
from torchvision.transforms import InterpolationMode, functional
from torchvision.transforms.v2.functional import resize as resize_any

from pretrain.common.decoders import DEFAULT_DECODER
from pretrain.common.images import to_eight_bits

__all__ = [
    "Pixels",
    "as_pil",
    "as_tensor",
    "crop_and_resize",
    "decode",
    "flip",
    "height_and_width",
    "images_on",
    "normalisation",
    "normalise",
    "resize",
]

Pixels = Image.Image | torch.Tensor
"""A PIL image, or a uint8 tensor `(C, H, W)`."""

_FORMATS = ("JPEG", "MPO")
"""Of files that torchvision decodes. PNG is not among them: on damaged ones torchvision 0.29 ends the process."""

_MODES = {"RGB": ("L", "RGB"), "L": ("L",)}
"""Modes of files that torchvision decodes to the pixels that Pillow converts to; colour becomes another grey there."""

_READ_MODES = {"RGB": "RGB", "L": "GRAY"}


def decode(file: Any, mode: str, decoder: str = DEFAULT_DECODER) -> Pixels:
    """Pixels of an image file: PIL's with the decoder "pil", else a tensor.

    What may be read, and what is told of a damaged file, is up to Pillow: it reads the header of every file, and
    decodes whatever torchvision does not take or refuses.

    Args:
        file: open for reading in binary mode, or a PIL image.
        mode: "RGB" or "L".

    Raises:
        Exception: of a dozen types, for a file that cannot be decoded.
    """
    if isinstance(file, Image.Image):
        image = to_eight_bits(file).convert(mode)
        return image if decoder == "pil" else as_tensor(image)
    if decoder == "pil":
        with Image.open(file) as image:
            return to_eight_bits(image).convert(mode)
    content = file.read()
    with Image.open(io.BytesIO(content)) as image:
        if image.format in _FORMATS and image.mode in _MODES[mode]:
            pixels = _decode_jpeg(content, mode)
            if pixels is not None:
                return pixels
        return as_tensor(to_eight_bits(image).convert(mode))


def _decode_jpeg(content: bytes, mode: str) -> torch.Tensor | None:
    """None for what torchvision refuses, such as a truncated file."""
    try:
        read_mode = torchvision_io.ImageReadMode[_READ_MODES[mode]]
        return torchvision_io.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), read_mode)
    except (AttributeError, RuntimeError):  # AttributeError: a torchvision without decoders, as it will be some day
        return None


def height_and_width(image: Pixels) -> tuple[int, int]:
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[-2], image.shape[-1])


def as_tensor(image: Pixels) -> torch.Tensor:
    """A PIL image as a uint8 tensor `(C, H, W)`; a tensor as it is."""
    return functional.pil_to_tensor(image) if isinstance(image, Image.Image) else image


def as_pil(image: Pixels) -> Image.Image:
    """The inverse of :func:`as_tensor`."""
    return image if isinstance(image, Image.Image) else functional.to_pil_image(image)


def resize(image: Pixels, size: Sequence[int]) -> Pixels:
    """Bicubic, with antialiasing, to height and width, or to the length of the shorter side.

    Each of the two passes, along rows and along columns, gives a tensor's pixel as a PIL image's or one beside it.
    """
    if isinstance(image, torch.Tensor):
        # (1, C, H, W), kept as (1, H, W, C), is what torch has fast code for.
        batch = image.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
        if len(size) == 2:  # what resize_any does too, with less around it
            return interpolate(batch, tuple(size), mode="bicubic", antialias=True)[0]
        image = batch[0]
    return resize_any(image, list(size), InterpolationMode.BICUBIC, antialias=True)


def flip(image: Pixels) -> Pixels:
    """Left and right exchanged."""
    return image.flip(-1) if isinstance(image, torch.Tensor) else functional.hflip(image)


def crop_and_resize(image: Pixels, box: Sequence[int], size: Sequence[int]) -> Pixels:
    """A part of an image, resized; what is outside of it has no influence.

    Args:
        box: top, left, height and width of the part.
        size: height and width of the result.
    """
    top, left, height, width = box
    if isinstance(image, torch.Tensor):
        return resize(image[:, top : top + height, left : left + width], size)
    return resize(image.crop((left, top, left + width, top + height)), size)


def normalisation(in_chans: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel: ImageNet's, averaged for other than three channels."""
    mean, std = list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD)
    return (mean, std) if in_chans == 3 else ([sum(mean) / 3] * in_chans, [sum(std) / 3] * in_chans)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """From uint8 `(…, C, H, W)` to what a model takes, float32 and contiguous."""
    # Copied without waiting for the device. (C, 1, 1)
    mean, std = (
        torch.tensor(values).view(-1, 1, 1).to(pixels.device, non_blocking=True)
        for values in normalisation(pixels.shape[-3])
    )
    floats = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    return floats.div_(255).sub_(mean).div_(std)


def images_on(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch from a loader on the device, as the model takes it: pixels, which are uint8, are normalised there.

    Args:
        images: pixels `(B, C, H, W)`; or what is normalised already, such as clips and features.
    """
    images = images.to(device, non_blocking=True)
    return normalise(images) if images.dtype == torch.uint8 else images
