"""ConvViT for semantic segmentation: BEiT's relative positions and LayerScale in stage 3, four outputs."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.modeling import Backbone
from einops import rearrange
from torch import nn

from convmae_det.attention.table import RelPosBiasTable, table_attention
from lazyrun.modeling.norms import sync_batch_norm
from pretrain.common.errors import UserError
from pretrain.models.layers import Block, init_linear
from pretrain.models.pos_embed import resize_pos_embed
from pretrain.models.recompute import norm_linear
from pretrain.models.trunk import ConvViTTrunk

__all__ = ["ConvViTSeg", "GridAttention", "LayerScaleBlock"]


class ConvViTSeg(ConvViTTrunk, Backbone):
    """ConvMAE's ConvViT (arXiv:2205.03892) as the backbone of UperNet.

    As in BEiT (arXiv:2106.08254), every block of stage 3 attends globally with a table of relative position biases of
    its own, and LayerScale (arXiv:2103.17239) multiplies what it adds. Parameter names are those of the published
    segmentation models.

    Takes images of other sizes than `img_size` too: positions and tables are resized to them.

    Args:
        img_size: side in pixels of the training images; sets the size of the position embedding and of the tables.
        patch_size, embed_dim, depth: downsampling, width and number of blocks of each of the three stages.
        in_chans: channels of the images.
        num_heads: attention heads in stage 3.
        mlp_ratio: one number, or one for each stage.
        qkv_bias: bias in the query, key and value projections.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over all blocks.
        norm_layer: norm of all blocks, with eps 1e-5 as published.
        layer_scale_init: what LayerScale begins with.
        use_act_checkpoint: recompute the blocks' activations in the backward pass: one bool, or one for each stage.
        out_features: names of the four outputs, at strides 4, 8, 16 and 32 with the default `patch_size`.

    Raises:
        UserError: `img_size` is not divisible by the total stride, or below :attr:`min_size`.
    """

    def __init__(
        self,
        img_size: int = 512,
        patch_size: Sequence[int] = (4, 2, 2),
        in_chans: int = 3,
        embed_dim: Sequence[int] = (256, 384, 768),
        depth: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        mlp_ratio: float | Sequence[float] = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        layer_scale_init: float = 1.0,
        use_act_checkpoint: bool | Sequence[bool] = False,
        out_features: Sequence[str] = ("s0", "s1", "s2", "s3"),
    ):
        side = img_size // math.prod(patch_size)
        super().__init__(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path_rate,
            conv_norm_layer=norm_layer,
            norm_layer=norm_layer,
            attention=lambda _: GridAttention(embed_dim[2], num_heads, side, qkv_bias),
            block_layer=partial(LayerScaleBlock, layer_scale_init=layer_scale_init),
            act_checkpoint=use_act_checkpoint,
        )
        self.check_image_size(img_size, img_size)
        self.grid_size = (side, side)
        dim = embed_dim[2]
        self.pos_embed = nn.Parameter(torch.zeros(1, side**2, dim))
        self.fpn = nn.Sequential(nn.Conv2d(dim, dim, kernel_size=3, stride=2), sync_batch_norm(dim), nn.GELU())
        strides = (self.patch_size[0], self.patch_size[0] * self.patch_size[1], self.stride, 2 * self.stride)
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(out_features, (*self.embed_dim, dim), strict=True))
        self._out_feature_strides = dict(zip(out_features, strides, strict=True))
        self._init_weights()

    def _init_weights(self) -> None:
        """As BEiT: deeper blocks add less to the residual stream."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(init_linear)
        with torch.no_grad():
            blocks: list[Any] = list(self.blocks3)
            for i, block in enumerate(blocks):
                for linear in (block.attn.proj, block.mlp.fc2):
                    linear.weight.div_(math.sqrt(2 * (i + 1)))

    @property
    def min_size(self) -> int:
        """The least side in pixels of an image: the last output's convolution is 3 tokens wide and not padded."""
        return 3 * self.stride

    def check_image_size(self, height: int, width: int) -> None:
        """Raises UserError unless both sides are multiples of the total stride and at least :attr:`min_size`."""
        super().check_image_size(height, width)
        if min(height, width) < self.min_size:
            raise UserError(f"Image size {height}x{width} is below {self.min_size} pixels; resize or pad the image.")

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            x: images `(B, in_chans, H, W)`, H and W divisible by the total stride and at least :attr:`min_size`.

        Returns:
            by name the outputs of the three stages `(B, C, h, w)`, and of the last one halved without padding:
            `((h - 1) // 2, (w - 1) // 2)`. All of them lie channels-last in memory.

        Raises:
            UserError: H or W is not divisible by the total stride, or too small.
        """
        stage1, stage2, x = self.forward_conv_stages(x)
        height, width = x.shape[1:3]
        x = x + resize_pos_embed(self.pos_embed, self.grid_size, (height, width)).unflatten(1, (height, width))
        stage3 = self.forward_blocks(2, x)
        # (B, H, W, C) -> (B, C, H, W)
        outputs = [stage.permute(0, 3, 1, 2) for stage in (stage1, stage2, stage3)]
        outputs.append(self.fpn(outputs[-1]))
        return dict(zip(self._out_features, outputs, strict=True))


class LayerScaleBlock(Block):
    """:class:`pretrain.models.layers.Block` whose two branches are multiplied by learned factors, one a channel."""

    def __init__(self, dim: int, *args: Any, layer_scale_init: float = 1.0):
        super().__init__(dim, *args)
        self.gamma_1 = nn.Parameter(torch.full((dim,), layer_scale_init))
        self.gamma_2 = nn.Parameter(torch.full((dim,), layer_scale_init))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.gamma_1 * self.attn(x, self.norm1))
        return x + self.drop_path(self.gamma_2 * self.mlp(x, self.norm2))


class GridAttention(RelPosBiasTable):
    """Multi-head self-attention over a whole grid `(B, H, W, C)` with a table of biases of its own.

    It is the table, not around it, because published files have both under one name. The table begins with zeros, so
    that pretrained attention starts undisturbed.

    Args:
        dim: channels.
        num_heads: attention heads; divides `dim`.
        size: side of the grid that the table is for.
        qkv_bias: bias in the query, key and value projections.

    Raises:
        UserError: `dim` is not divisible by `num_heads`.
    """

    def __init__(self, dim: int, num_heads: int, size: int, qkv_bias: bool = True):
        if dim % num_heads:
            raise UserError(f"embed_dim {dim} is not divisible by num_heads {num_heads}.")
        super().__init__(size, num_heads)
        nn.init.zeros_(self.relative_position_bias_table)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:  # type: ignore[override]
        """Attention over `norm(x)`; the pre-norm is fused into the projection."""
        height, width = x.shape[1:3]
        qkv = norm_linear(x, norm, self.qkv)
        q, k, v = rearrange(qkv, "b h w (three heads d) -> three b heads (h w) d", three=3, heads=self.num_heads)
        out = table_attention(q, k, v, super().forward(height, width))
        return self.proj(rearrange(out, "b heads (h w) d -> b h w (heads d)", h=height))
