"""ConvViT under a feature pyramid network: one output for each stage, and one more."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from torch import nn

from convmae_det.attention.table import RelPosBiasTable, TableAttention
from pretrain.common.errors import UserError
from pretrain.models.layers import init_linear
from pretrain.models.pos_embed import resize_pos_embed, sincos_pos_embed
from pretrain.models.trunk import ConvViTTrunk

__all__ = ["ConvViTFPN"]


class ConvViTFPN(ConvViTTrunk, Backbone):
    """ConvMAE's ConvViT (arXiv:2205.03892) as the `bottom_up` of :class:`detectron2.modeling.FPN`.

    Attention is that of Li et al. (arXiv:2111.11429): in windows or global, with one table of relative position biases
    for all windowed blocks and one for all global ones. Parameter names are those of the published detectors.

    Position embeddings are frozen. They, and the tables, are resized for images of another size than `img_size`.
    Padding takes part like any other place of the image: what an image's features are depends on how it is padded, not
    on the other images of the batch.

    Args:
        img_size: side in pixels of the training images; sets the size of the position embedding and the global table.
        patch_size, embed_dim, depth: downsampling, width and number of blocks of each of the three stages.
        in_chans: channels of the images.
        num_heads: attention heads in stage 3.
        mlp_ratio: one number, or one for each stage.
        qkv_bias: bias in the query, key and value projections.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over all blocks.
        conv_norm_layer, norm_layer: norms of the convolution and the transformer blocks, with eps 1e-5 and 1e-6.
        window_size: side of the attention windows in stage-3 tokens.
        global_block_indexes: stage-3 blocks with global attention; the others attend in windows.
        use_act_checkpoint: recompute the blocks' activations in the backward pass: one bool, or one for each stage.
        out_features: names of the four outputs, at strides 4, 8, 16 and 32 with the default `patch_size`.

    Raises:
        UserError: `img_size` is not divisible by the total stride, or a block index is out of range.
    """

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
        conv_norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        norm_layer: Callable[[int], nn.Module] = partial(nn.LayerNorm, eps=1e-6),
        window_size: int = 16,
        global_block_indexes: Sequence[int] = (0, 3, 6, 10),
        use_act_checkpoint: bool | Sequence[bool] = False,
        out_features: Sequence[str] = ("s0", "s1", "s2", "s3"),
    ):
        out_of_range = [i for i in global_block_indexes if not 0 <= i < depth[2]]
        if out_of_range:
            raise UserError(f"global_block_indexes {out_of_range} are not among the {depth[2]} blocks of stage 3.")
        side = img_size // (patch_size[0] * patch_size[1] * patch_size[2])
        windowed_bias, global_bias = RelPosBiasTable(window_size, num_heads), RelPosBiasTable(side, num_heads)

        def attention(i: int) -> nn.Module:
            if i in global_block_indexes:
                return TableAttention(embed_dim[2], num_heads, global_bias, qkv_bias)
            return TableAttention(embed_dim[2], num_heads, windowed_bias, qkv_bias, window_size)

        super().__init__(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path_rate,
            conv_norm_layer=conv_norm_layer,
            norm_layer=norm_layer,
            attention=attention,
            act_checkpoint=use_act_checkpoint,
        )
        self.check_image_size(img_size, img_size)
        self.grid_size = (side, side)
        self.windowed_rel_pos_bias, self.global_rel_pos_bias = windowed_bias, global_bias
        self.pos_embed = nn.Parameter(sincos_pos_embed(embed_dim[2], self.grid_size), requires_grad=False)
        strides = (self.patch_size[0], self.patch_size[0] * self.patch_size[1], self.stride, 2 * self.stride)
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(out_features, (*self.embed_dim, self.embed_dim[2]), strict=True))
        self._out_feature_strides = dict(zip(out_features, strides, strict=True))
        self.apply(init_linear)

    @property
    def size_divisibility(self) -> int:
        """What the sides of an image must be multiples of: the stride of the last output."""
        return 2 * self.stride

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            x: images `(B, in_chans, H, W)`, H and W divisible by twice the total stride.

        Returns:
            the outputs of the three stages and the last one's 2×2 max pool, by name, each `(B, C, H', W')`.

        Raises:
            UserError: H or W is not divisible by the total stride.
        """
        stage1, stage2, x = self.forward_conv_stages(x)
        height, width = x.shape[1:3]
        x = x + resize_pos_embed(self.pos_embed, self.grid_size, (height, width)).unflatten(1, (height, width))
        stage3 = self.forward_blocks(2, x)
        # (B, H, W, C) -> (B, C, H, W)
        outputs = [stage.permute(0, 3, 1, 2) for stage in (stage1, stage2, stage3)]
        outputs.append(F.max_pool2d(outputs[-1], kernel_size=2))
        return dict(zip(self._out_features, outputs, strict=True))
