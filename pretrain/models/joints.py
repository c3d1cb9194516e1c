"""How the outputs of stages 1 and 2 join that of stage 3: one strided convolution each, computed patch by patch."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from pretrain.models.layers import patch_weight

__all__ = ["StageJoints"]


class StageJoints(nn.Module):
    """A part of encoders, with the published names of the two convolutions."""

    embed_dim: tuple[Any, ...]
    patch_size: tuple[Any, ...]

    def make_joints(self) -> None:
        """What brings the outputs of stages 1 and 2 to the grid and width of stage 3."""
        dim1, dim2, dim3 = self.embed_dim
        _, p2, p3 = self.patch_size
        self.stage1_output_decode = nn.Conv2d(dim1, dim3, kernel_size=p2 * p3, stride=p2 * p3)
        self.stage2_output_decode = nn.Conv2d(dim2, dim3, kernel_size=p3, stride=p3)

    def join_stages(self, x: torch.Tensor, stage1: torch.Tensor, stage2: torch.Tensor) -> torch.Tensor:
        """The sum of all three stages.

        Args:
            x: of stage 3, `(M, P + N, embed_dim[2])`; P prefix tokens.
            stage1: `(M, N, p3 * p3, p2 * p2 * embed_dim[0])`, the tokens of each patch grouped as stage 2 sees them.
            stage2: `(M, N, p3 * p3, embed_dim[1])`.
        """
        _, p2, p3 = self.patch_size
        # (O, C, row, column) -> (O, row, column, C), then into the order of the tokens
        weight1 = self.stage1_output_decode.weight.permute(0, 2, 3, 1)
        weight1 = rearrange(weight1, "o (r3 r2) (c3 c2) c -> o (r3 c3 r2 c2 c)", r3=p3, c3=p3, r2=p2, c2=p2)
        weight2 = patch_weight(self.stage2_output_decode.weight)
        x = x + F.linear(stage1.flatten(2), weight1, self.stage1_output_decode.bias)
        return x + F.linear(stage2.flatten(2), weight2, self.stage2_output_decode.bias)
