"""Test-time augmentation: probabilities averaged over scaled and mirrored images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lazyrun.modeling.tta import ScaleAndFlip

__all__ = ["SegmentorTTA"]


class SegmentorTTA(nn.Module):
    """A segmentor that looks at every image at several scales, mirrored and not.

    Softmax probabilities at the size of the original image are averaged, a piece at a time. The image is resized from
    what the test transform made of it.

    Args:
        model: a :class:`convmae_seg.segmentor.Segmentor`.
        scales: factors on the size that the test transform gives the image.
        flip: look at a horizontally mirrored copy of each too.
    """

    model: Any  # a Segmentor, which is made of this class in turn

    def __init__(self, model: nn.Module, scales: Sequence[float], flip: bool):
        super().__init__()
        self.model, self.flip = model, flip
        self.num_classes = self.model.num_classes
        self.scale = ScaleAndFlip(scales, flip=False)
        self.train(model.training)  # evaluating puts the mode of the outer module back into the inner one

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict[str, torch.Tensor]]:
        """As :meth:`Segmentor.forward` in evaluation; `sem_seg` holds the mean probabilities of several views."""
        return [self._segment(inputs) for inputs in batched_inputs]

    def _segment(self, inputs: dict) -> dict[str, torch.Tensor]:
        image = inputs["image"]
        size = inputs.get("height", image.shape[-2]), inputs.get("width", image.shape[-1])
        views = [
            self.model.view(scaled["image"], size, flip)
            for scaled in self.scale(inputs | {"height": size[0], "width": size[1]})
            for flip in ((False, True) if self.flip else (False,))
        ]
        return self.model.decide(views, size)
