"""The training pass of a segmentor on fake tensors."""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch

__all__ = ["segmentor_training_pass"]


def segmentor_training_pass(model: Any, batch_size: int, size: tuple[int, int]) -> Callable[[], torch.Tensor]:
    """The forward pass of a training step on made-up images and label maps of one size.

    Args:
        model: a :class:`convmae_seg.segmentor.Segmentor` of fake tensors.
        size: height and width in pixels.

    Returns:
        a function without arguments that returns the sum of the losses.
    """
    model.train()
    device, channels = model.device, len(model.pixel_mean)
    image = torch.empty(channels, *size, device=device)
    labels = torch.zeros(*size, dtype=torch.int64, device=device)
    batch = [{"image": image, "sem_seg": labels} for _ in range(batch_size)]

    def stack(self: Any, tensors: Sequence[torch.Tensor], pad_value: float) -> torch.Tensor:
        return torch.stack(list(tensors))  # detectron2 would look at values to learn the largest size

    model._batch = MethodType(stack, model)
    return lambda: sum(model(batch).values())
