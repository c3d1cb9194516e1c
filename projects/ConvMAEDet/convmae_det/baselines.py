"""The published computation of the detection backbone, sharing the weights of ours.

Written to be plain, not fast: the tests compare with it and the benchmark measures against it.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.utils import (
    add_decomposed_rel_pos,
    get_abs_pos,
    window_partition,
    window_unpartition,
)
from torch import nn

from convmae_det.attention.rel_pos import RelPosAttention
from convmae_det.backbone import ConvViT
from pretrain.benchmarks.baselines import dense_conv_stage, dense_patch_embed
from pretrain.common.errors import UserError

__all__ = ["DenseConvViT", "dense_attention", "with_dense_backbone"]


class DenseConvViT(Backbone):
    """A ConvViT's forward pass as published: stages 1 and 2 in `(B, C, H, W)` with LayerNorm between permutes, stage 3
    as detectron2's ViT computes it, with the N×N matrix and its bias. Weights are those of the given backbone.
    """

    def __init__(self, net: ConvViT):
        super().__init__()
        self.net = net

    def output_shape(self) -> dict:
        return Backbone.output_shape(self.net)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """As :meth:`convmae_det.backbone.ConvViT.forward`."""
        net = self.net
        stages = []
        for embed, blocks in ((net.patch_embed1, net.blocks1), (net.patch_embed2, net.blocks2)):
            x = dense_conv_stage(blocks, dense_patch_embed(embed, x))
            stages.append(x.permute(0, 2, 3, 1))
        # (B, C, H, W) -> (B, H, W, C)
        x = net.patch_embed4(dense_patch_embed(net.patch_embed3, x).permute(0, 2, 3, 1))
        if net.pos_embed is not None:
            x = x + get_abs_pos(net.pos_embed, net.pretrain_use_cls_token, x.shape[1:3])
        blocks3: Iterable[Any] = net.blocks3
        for block in blocks3:
            x = x + block.drop_path(windowed(block.attn, block.norm1(x)))
            x = x + block.drop_path(block.mlp.fc2(block.mlp.act(block.mlp.fc1(block.norm2(x)))))
        # (B, H, W, C) -> (B, C, H, W)
        return {net._out_features[0]: net.join_stages(stages[0], stages[1], x).permute(0, 3, 1, 2)}


def windowed(attn: RelPosAttention, x: torch.Tensor) -> torch.Tensor:
    """Attention over tokens `(B, H, W, C)`, in windows if it has them."""
    if not attn.window_size:
        return dense_attention(attn, x)
    windows, padded_size = window_partition(x, attn.window_size)
    return window_unpartition(dense_attention(attn, windows), attn.window_size, padded_size, x.shape[1:3])


def dense_attention(attn: RelPosAttention, x: torch.Tensor) -> torch.Tensor:
    """Attention among all tokens `(B, H, W, C)` of each grid, as in detectron2's ViT."""
    B, H, W, _ = x.shape
    # (B, H, W, 3 * C) -> (3, B, heads, H * W, d) -> 3 of (B * heads, H * W, d)
    qkv = attn.qkv(x).reshape(B, H * W, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.reshape(3, B * attn.num_heads, H * W, -1).unbind(0)
    weights = (q * attn.scale) @ k.transpose(-2, -1)
    if attn.use_rel_pos:
        weights = add_decomposed_rel_pos(weights, q, attn.rel_pos_h, attn.rel_pos_w, (H, W), (H, W))
    x = (weights.softmax(dim=-1) @ v).view(B, attn.num_heads, H, W, -1)
    # (B, heads, H, W, d) -> (B, H, W, C)
    return attn.proj(x.permute(0, 2, 3, 1, 4).reshape(B, H, W, -1))


def with_dense_backbone(model: nn.Module) -> nn.Module:
    """A copy of a detector that computes its ConvViT as published; parameters and buffers are shared, not copied.

    Raises:
        UserError: the detector has no ConvViT at `backbone.net`.
    """
    net = getattr(getattr(model, "backbone", None), "net", None)
    if not isinstance(net, ConvViT):
        raise UserError(f"The model has no ConvViT at backbone.net but a {type(net).__name__}; it has no dense form.")
    dense: Any = copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})
    dense.backbone.net = DenseConvViT(dense.backbone.net)
    return dense
