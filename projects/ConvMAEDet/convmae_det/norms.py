"""Batch norm over the images of all processes, on any device."""

import torch
from detectron2.utils import comm
from fvcore.nn.distributed import differentiable_all_reduce
from torch import nn

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(nn.SyncBatchNorm):
    """:class:`torch.nn.SyncBatchNorm` that runs on CPUs (gloo) too, with the same statistics and parameter names.

    PyTorch's own needs a GPU as soon as there are several processes. Unlike detectron2's NaiveSyncBatchNorm, every
    value counts the same although processes may have maps of other sizes.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises `(B, C, H, W)`; B may be 0 on some of the processes."""
        if x.device.type != "cpu" or not self.training or comm.get_world_size() == 1:
            return super().forward(x)
        x32 = x.float()
        count = x32.new_tensor([x32.numel() / self.num_features])
        sums = torch.cat([x32.sum((0, 2, 3)), x32.square().sum((0, 2, 3)), count])
        sums = differentiable_all_reduce(sums)
        count = sums[-1].detach()
        mean, mean_square = (sums[:-1] / count).chunk(2)
        var = mean_square - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = var * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return (x32 * scale[:, None, None] + shift[:, None, None]).to(x.dtype)
