"""The three-stage ConvViT trunk (arXiv:2205.03892) that pretraining, classification and detection build on."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pretrain.common.errors import UserError
from pretrain.models.layers import Attention, Block, ConvBlock, DepthwiseConv, PatchEmbed, drop_path_rates
from pretrain.names import per_stage

__all__ = ["ConvViTTrunk", "run_blocks"]


class ConvViTTrunk(nn.Module):
    """Patch embeddings and blocks of the three stages, under their published names.

    Stages 1 and 2 are convolution blocks at strides `patch_size[0]` and `patch_size[0] * patch_size[1]`, stage 3 is a
    plain transformer at the total stride. Subclasses add position embeddings and decide what runs between the stages.

    Args:
        patch_size: downsampling of each stage; the product is the total stride.
        embed_dim: width of each stage.
        depth: number of blocks of each stage.
        mlp_ratio: one number, or one for each stage.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over all blocks.
        conv_norm_layer: norm of the convolution blocks: eps 1e-5 in pretraining and classification, 1e-6 in detection.
        norm_layer: norm of the transformer blocks.
        conv_layer: makes the depthwise convolution of a block of stages 1 and 2, from its channels.
        attention: makes the attention module of stage-3 block `i`; called as `attention(i)`.
        block_layer: the blocks of stage 3, :class:`pretrain.models.layers.Block` or one with its arguments.
        act_checkpoint: recompute the blocks' activations in the backward pass: one bool, or one for each stage.

    Attributes:
        STAGES: the modules and parameters of each stage, with what leads into it.
        stride: total stride in pixels.
    """

    STAGES: ClassVar[dict[str, tuple[str, ...]]] = {
        "stage1": ("patch_embed1", "blocks1"),
        "stage2": ("patch_embed2", "blocks2"),
        "stage3": ("patch_embed3", "patch_embed4", "pos_embed", "blocks3"),
    }

    def __init__(
        self,
        *,
        patch_size: Sequence[int] = (4, 2, 2),
        in_chans: int = 3,
        embed_dim: Sequence[int] = (256, 384, 768),
        depth: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        mlp_ratio: float | Sequence[float] = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        conv_norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        norm_layer: Callable[[int], nn.Module] = partial(nn.LayerNorm, eps=1e-6),
        act_layer: Callable[[], nn.Module] = nn.GELU,
        conv_layer: Callable[[int], nn.Module] = DepthwiseConv,
        attention: Callable[[int], nn.Module] | None = None,
        block_layer: Callable[..., nn.Module] = Block,
        act_checkpoint: bool | Sequence[bool] = False,
    ):
        super().__init__()
        self.patch_size, self.embed_dim = (
            per_stage("patch_size", patch_size),
            per_stage("embed_dim", embed_dim),
        )
        self.stride = self.patch_size[0] * self.patch_size[1] * self.patch_size[2]
        depth, mlp_ratio = per_stage("depth", depth), per_stage("mlp_ratio", mlp_ratio)
        self.act_checkpoint = per_stage("act_checkpoint", act_checkpoint)
        dim1, dim2, dim3 = self.embed_dim
        if attention is None:

            def attention(_: int) -> nn.Module:
                return Attention(dim3, num_heads, qkv_bias)

        self.patch_embed1 = PatchEmbed(self.patch_size[0], in_chans, dim1)
        self.patch_embed2 = PatchEmbed(self.patch_size[1], dim1, dim2)
        self.patch_embed3 = PatchEmbed(self.patch_size[2], dim2, dim3)
        self.patch_embed4 = nn.Linear(dim3, dim3)

        rates = drop_path_rates(drop_path_rate, depth)
        self.blocks1, self.blocks2 = (
            nn.ModuleList(
                ConvBlock(self.embed_dim[stage], mlp_ratio[stage], rate, conv_norm_layer, act_layer, conv_layer)
                for rate in rates[stage]
            )
            for stage in (0, 1)
        )
        self.blocks3 = nn.ModuleList(
            block_layer(dim3, attention(i), mlp_ratio[2], rate, norm_layer, act_layer)
            for i, rate in enumerate(rates[2])
        )

    def check_image_size(self, height: int, width: int) -> None:
        """Raises UserError unless both sides, in pixels, are positive multiples of the total stride."""
        if height < 1 or width < 1 or height % self.stride or width % self.stride:
            raise UserError(
                f"Image size {height}x{width} is not divisible by the total stride {self.stride} of "
                f"patch_size={self.patch_size}; resize or pad the image to a multiple of {self.stride}."
            )

    def forward_conv_stages(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Stages 1 and 2 and the embedding of stage 3, without a mask.

        Args:
            x: images `(B, in_chans, H, W)`.

        Returns:
            the outputs of stages 1 and 2 and the tokens that enter stage 3 (before positions are added), each a
            channels-last grid at its own stride.

        Raises:
            UserError: H or W is not divisible by the total stride.
        """
        self.check_image_size(*x.shape[-2:])
        # (B, C, H, W) -> (B, H, W, C)
        stage1 = self.forward_blocks(0, self.patch_embed1(x.permute(0, 2, 3, 1)))
        stage2 = self.forward_blocks(1, self.patch_embed2(stage1))
        return stage1, stage2, self.patch_embed4(self.patch_embed3(stage2))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes the blocks of all stages in the backward pass, or of none; timm's name for it."""
        self.act_checkpoint = (enable,) * 3

    def forward_blocks(self, stage: int, x: torch.Tensor, *args: Any) -> torch.Tensor:
        """Runs the blocks of stage 0, 1 or 2 on tokens x, each called as `block(x, *args)`."""
        blocks = (self.blocks1, self.blocks2, self.blocks3)[stage]
        return run_blocks(blocks, x, *args, act_checkpoint=self.training and self.act_checkpoint[stage])


def run_blocks(blocks: Iterable[nn.Module], x: torch.Tensor, *args: Any, act_checkpoint: bool = False) -> torch.Tensor:
    """Calls each block as `x = block(x, *args)`; `act_checkpoint` recomputes activations in the backward pass."""
    for block in blocks:
        if act_checkpoint and torch.is_grad_enabled():
            x = checkpoint(block, x, *args, use_reentrant=False)
        else:
            x = block(x, *args)
    return x
