"""Batch norm over the images of all processes, on any device."""

import torch
from detectron2.utils import comm
from fvcore.nn.distributed import differentiable_all_reduce
from torch import nn

__all__ = ["PlainSyncBatchNorm", "grid_batch_norm", "sync_batch_norm"]


def sync_batch_norm(num_features: int) -> nn.Module:
    """:class:`torch.nn.SyncBatchNorm`; where there is no GPU, which it needs, the same for processes on CPUs."""
    return nn.SyncBatchNorm(num_features) if torch.cuda.is_available() else PlainSyncBatchNorm(num_features)


class PlainSyncBatchNorm(nn.BatchNorm2d):
    """:class:`torch.nn.SyncBatchNorm` of plain tensor operations, with the same statistics and parameter names.

    It works on any device, in any precision, and with processes that have no input at all. detectron2's
    NaiveSyncBatchNorm differs: in it values count less in a larger map, and in bfloat16 it computes the statistics in
    that precision, where the variance may come out negative.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises `(B, C, H, W)` in float32 and gives the type of `x`; B may be 0, even on all processes."""
        if not self.training or comm.get_world_size() == 1:
            return super().forward(x)
        x32 = x.float()
        count = x32.new_tensor([x32.numel() / self.num_features])
        sums = differentiable_all_reduce(torch.cat([x32.sum((0, 2, 3)), x32.square().sum((0, 2, 3)), count]))
        count = sums[-1].detach()
        mean, mean_square = (sums[:-1] / count.clamp(min=1)).chunk(2)
        var = (mean_square - mean.square()).clamp(min=0)  # rounding makes that of nearly equal values negative
        with torch.no_grad():
            assert self.num_batches_tracked is not None and self.momentum is not None
            assert self.running_mean is not None and self.running_var is not None
            momentum = self.momentum * count.clamp(max=1)  # without any input the running statistics stay
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * count / (count - 1).clamp(min=1), momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return (x32 * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def grid_batch_norm(num_features: int) -> nn.Module:
    """:func:`sync_batch_norm` of channels-last grids `(B, H, W, C)`: a `norm_layer` for ConvViTs.

    From random weights small ones learn faster with it than with LayerNorm; pretrained weights have no place for it.
    """
    return _GridSyncBatchNorm(num_features) if torch.cuda.is_available() else _GridPlainSyncBatchNorm(num_features)


class _OnGrids(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # (B, H, W, C) -> (B, C, H, W) and back are views.
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _GridSyncBatchNorm(_OnGrids, nn.SyncBatchNorm):
    pass


class _GridPlainSyncBatchNorm(_OnGrids, PlainSyncBatchNorm):
    pass
