"""ConvViT whose output joins all three stages, as ConvMAE's pretraining joins them."""

import torch
from torch import nn

from convmae_det.backbone import ConvViT

__all__ = ["FusedConvViT"]


class FusedConvViT(ConvViT):
    """:class:`~convmae_det.backbone.ConvViT` that gives what the decoder of its pretraining saw: the norm of the sum of
    all three stages, the first two brought to the last one's grid (ConvMAE, arXiv:2205.03892, section 3.2).

    The published detectors take the last block alone, which leaves to the first two stages what these hold anyway. Then
    little of its output is about the image: after a short pretraining on the demo's images 99 % of its variance is the
    same pattern of positions in all of them, and 78 % of that of the sum. A short fine-tuning starts far better from
    the sum; docs/pretraining.md has figures. Parameters have the names of pretraining, and its files fill them.
    """

    def make_joints(self) -> None:
        """Two convolutions and a norm, as in pretraining."""
        dim1, dim2, dim3 = self.embed_dim
        _, p2, p3 = self.patch_size
        self.stage1_output_decode = nn.Conv2d(dim1, dim3, kernel_size=p2 * p3, stride=p2 * p3)
        self.stage2_output_decode = nn.Conv2d(dim2, dim3, kernel_size=p3, stride=p3)
        self.norm = nn.LayerNorm(dim3, eps=1e-6)

    def join_stages(self, stage1: torch.Tensor, stage2: torch.Tensor, stage3: torch.Tensor) -> torch.Tensor:
        """The norm of the sum; shapes as in the base class."""
        # (B, H, W, C) -> (B, C, H, W) for the convolutions, and back
        for x, convolution in ((stage1, self.stage1_output_decode), (stage2, self.stage2_output_decode)):
            stage3 = stage3 + convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(stage3)
