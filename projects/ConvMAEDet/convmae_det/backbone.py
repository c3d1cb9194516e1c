"""ConvViT as a detectron2 backbone: the ConvMAE encoder with ViTDet's windowed and global attention."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.utils import get_abs_pos
from einops import rearrange
from torch import nn

from convmae_det.attention.rel_pos import RelPosAttention
from pretrain.common.errors import UserError
from pretrain.models.layers import init_linear
from pretrain.models.trunk import ConvViTTrunk

__all__ = ["ConvViT", "init_linear"]


class ConvViT(ConvViTTrunk, Backbone):
    """ConvMAE's three-stage ConvViT (arXiv:2205.03892) with a single output, as ViTDet (arXiv:2203.16527) uses plain
    ViTs; meant as the `net` of :class:`detectron2.modeling.SimpleFeaturePyramid`.

    Takes any image whose sides are multiples of the total stride. Parameter names are those of the published detectors.

    Args:
        img_size: side in pixels of the training images; sets the size of the relative positions of global blocks.
        patch_size, embed_dim, depth: downsampling, width and number of blocks of each of the three stages.
        in_chans: channels of the images.
        num_heads: attention heads in stage 3.
        mlp_ratio: one number, or one for each stage.
        qkv_bias: bias in the query, key and value projections.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over all blocks.
        norm_layer: norm of all blocks, with eps 1e-6 as published. In pretraining and classification the convolution
            blocks use eps 1e-5; patch embeddings use 1e-5 everywhere.
        act_layer: activation of all MLPs.
        use_abs_pos: add a learned absolute position embedding on the pretraining grid, resized to the image's.
        use_rel_pos: add decomposed relative positions in stage 3.
        rel_pos_zero_init: start relative positions at zero.
        window_size: side of the attention windows in stride-16 tokens.
        window_block_indexes: stage-3 blocks with windowed attention; the others attend globally.
        use_act_checkpoint: recompute the blocks' activations in the backward pass: one bool, or one for each stage.
        pretrain_img_size: side in pixels of the pretraining images.
        pretrain_use_cls_token: the position embedding begins with a class token's; ConvMAE's does not.
        out_feature: name of the output.

    Raises:
        UserError: `img_size` or `pretrain_img_size` is not divisible by the total stride, a block index is out of
            range, or a per-stage argument has neither one value nor three.
    """

    pos_embed: nn.Parameter | None

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: Sequence[int] = (4, 2, 2),
        in_chans: int = 3,
        embed_dim: Sequence[int] = (256, 384, 768),
        depth: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        mlp_ratio: float | Sequence[float] = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = partial(nn.LayerNorm, eps=1e-6),
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool | Sequence[bool] = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = False,
        out_feature: str = "last_feat",
    ):
        out_of_range = [i for i in window_block_indexes if not 0 <= i < depth[2]]
        if out_of_range:
            raise UserError(f"window_block_indexes {out_of_range} are not among the {depth[2]} blocks of stage 3.")
        stride = patch_size[0] * patch_size[1] * patch_size[2]
        grid = (img_size // stride, img_size // stride)

        def attention(i: int) -> nn.Module:
            return RelPosAttention(
                embed_dim[2],
                num_heads,
                qkv_bias,
                use_rel_pos,
                rel_pos_zero_init,
                input_size=grid,
                window_size=window_size if i in window_block_indexes else 0,
            )

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
            act_layer=act_layer,
            attention=attention,
            act_checkpoint=use_act_checkpoint,
        )
        self.check_image_size(img_size, img_size)
        self.check_image_size(pretrain_img_size, pretrain_img_size)
        self.pretrain_use_cls_token = pretrain_use_cls_token
        if use_abs_pos:
            positions = (pretrain_img_size // self.stride) ** 2 + pretrain_use_cls_token
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim[2]))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        else:
            self.pos_embed = None
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim[2]}
        self._out_feature_strides = {out_feature: self.stride}
        self.make_joints()
        self.apply(init_linear)

    def make_joints(self) -> None:
        """Makes the layers of :meth:`join_stages`; called at the end of the constructor."""

    @property
    def window_pixels(self) -> int:
        """Side of the largest attention window in pixels; an export for free sizes needs larger images."""
        attentions: list[Any] = [block.attn for block in self.blocks3]
        return max((attention.window_size for attention in attentions), default=0) * self.stride

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            x: images `(B, in_chans, H, W)`, H and W divisible by the total stride.

        Returns:
            `{out_feature: (B, embed_dim[2], H / stride, W / stride)}`.

        Raises:
            UserError: H or W is not divisible by the total stride.
        """
        stage1, stage2, x = self.forward_conv_stages(x)
        if self.pos_embed is not None:
            x = x + self._absolute_positions(*x.shape[1:3])
        x = self.join_stages(stage1, stage2, self.forward_blocks(2, x))
        # (B, H, W, C) -> (B, C, H, W)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}

    def join_stages(self, stage1: torch.Tensor, stage2: torch.Tensor, stage3: torch.Tensor) -> torch.Tensor:
        """What the output is made of: the last stage alone.

        Args:
            stage1, stage2, stage3: outputs of the stages, `(B, H, W, C)`, each at its own stride.

        Returns:
            `(B, H, W, embed_dim[2])` at the total stride.
        """
        return stage3

    def _absolute_positions(self, H: int, W: int) -> torch.Tensor:
        """The position embedding on a grid, `(1, H, W, embed_dim[2])`."""
        if not isinstance(H, torch.SymInt):
            return get_abs_pos(self.pos_embed, self.pretrain_use_cls_token, (H, W))
        # detectron2 leaves a grid of the right size alone, which an export for varying sizes cannot decide; resizing
        # it to its own size changes nothing.
        positions = self.pos_embed[:, int(self.pretrain_use_cls_token) :]
        grid = rearrange(positions, "one (h w) c -> one c h w", h=math.isqrt(positions.shape[1]))
        return F.interpolate(grid, size=(H, W), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
