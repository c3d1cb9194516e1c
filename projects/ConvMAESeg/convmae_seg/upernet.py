"""UperNet's heads (Xiao et al., arXiv:1807.10221) under the names of the published segmentation models.

The head of the library transformers has the same arithmetic, but calls norms and classifiers otherwise, has no dropout
and plain batch norm alone. So it is written out; all it consists of is PyTorch's.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from lazyrun.modeling.norms import sync_batch_norm

__all__ = ["ConvNormAct", "FCNHead", "UperHead"]


class ConvNormAct(nn.Module):
    """Convolution with "same" padding and without bias, batch norm over all processes, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = sync_batch_norm(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Head(nn.Module):
    """Ends in a classifier of pixels; dropout drops whole channels of its input, as usual in the field."""

    def __init__(self, channels: int, num_classes: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, kernel_size=1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        assert self.conv_seg.bias is not None
        nn.init.zeros_(self.conv_seg.bias)

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_seg(self.dropout(x))


class UperHead(_Head):
    """Pyramid pooling on the last feature, a feature pyramid over all of them, and a classifier on their union.

    Args:
        in_channels: channels of each feature, the finest first.
        num_classes: classes to tell apart.
        channels: channels of every layer.
        pool_scales: sides of the grids that the last feature is averaged to.
        dropout: share of channels that the classifier does not see in training.
        in_features: names of the features.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 768,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        in_features: Sequence[str] = ("s0", "s1", "s2", "s3"),
    ):
        super().__init__(channels, num_classes, dropout)
        *finer, last = in_channels
        self.in_features = list(in_features)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNormAct(last, channels, 1)) for scale in pool_scales
        )
        self.bottleneck = ConvNormAct(last + len(pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvNormAct(c, channels, 1) for c in finer)
        self.fpn_convs = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = ConvNormAct(len(in_channels) * channels, channels, 3)

    def forward(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits `(B, num_classes, h, w)` at the size of the finest feature; each feature is `(B, C, h', w')`."""
        *finer, last = (features[name] for name in self.in_features)
        top = self._pool_pyramid(last)
        outputs = [top]
        for x, lateral, conv in reversed(list(zip(finer, self.lateral_convs, self.fpn_convs, strict=True))):
            x = lateral(x)
            top = x + _resize(top, x)
            outputs.insert(0, conv(top))
        x = torch.cat([outputs[0], *(_resize(x, outputs[0]) for x in outputs[1:])], dim=1)
        return self.classify(self.fpn_bottleneck(x))

    def _pool_pyramid(self, x: torch.Tensor) -> torch.Tensor:
        """PSPNet's pooling (arXiv:1612.01105, figure 3): averages over coarse grids beside the feature itself."""
        pooled = [_resize(pool(x), x) for pool in self.psp_modules]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))


class FCNHead(_Head):
    """One 3×3 convolution and a classifier on one feature (arXiv:1411.4038): the auxiliary head.

    Args:
        in_channels: channels of the feature.
        num_classes: classes to tell apart.
        channels: channels of the convolution.
        dropout: share of channels that the classifier does not see in training.
        in_feature: name of the feature.
    """

    def __init__(
        self, in_channels: int, num_classes: int, channels: int = 256, dropout: float = 0.1, in_feature: str = "s2"
    ):
        super().__init__(channels, num_classes, dropout)
        self.in_feature = in_feature
        self.convs = nn.Sequential(ConvNormAct(in_channels, channels, 3))

    def forward(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits `(B, num_classes, h, w)` at the size of the feature."""
        return self.classify(self.convs(features[self.in_feature]))


def _resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
