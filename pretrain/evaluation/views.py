"""A classifier on several views of a video: the softmax scores of its clips and crops, averaged."""

import torch
from torch import nn

__all__ = ["ViewAverage"]


class ViewAverage(nn.Module):
    """Logits of images or clips; of views `(B, V, C, F, H, W)` the logarithm of their mean probabilities."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        if clips.ndim < 6:
            return self.model(clips)
        # One view at a time: as much memory as one clip a video.
        views = [self.model(view).float().softmax(dim=-1) for view in clips.unbind(1)]
        return torch.stack(views).mean(0).log()
