"""What our models are measured against: ConvMAE computed densely, as published, and MAE's plain ViT.

Written to be plain, not fast: they serve the tests as a second opinion and the benchmark as the baseline.
"""

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import nn

from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.encoder import MASKINGS
from pretrain.models.pos_embed import sincos_pos_embed

__all__ = ["DenseConvMAE", "MaskedAutoencoderViT"]


class DenseConvMAE(nn.Module):
    """A model's forward pass as the published code does it: stages 1 and 2 on all tokens in `(B, C, H, W)`, the mask
    multiplied in, LayerNorm between permutes, attention with its N×N matrix. Weights are shared with the given model.

    With complementary masks, the four groups' masked convolutions are computed one after the other and each token
    takes the one of its own group.
    """

    def __init__(self, model: MaskedAutoencoderConvViT):
        super().__init__()
        self.model = model

    def forward(
        self, imgs: torch.Tensor, mask_ratio: float = 0.75, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`pretrain.models.autoencoder.MaskedAutoencoderConvViT.forward`."""
        m = self.model
        if noise is None:
            noise = torch.rand(imgs.shape[0], m.grid_size[0] * m.grid_size[1], device=imgs.device)
        ids_keep, _, ids_restore, mask = MASKINGS[m.masking](noise, mask_ratio)
        latent = self.encode(imgs, mask, ids_keep)
        pred = self.decode(latent, ids_restore)

        target = m.patchify(imgs)
        if m.norm_pix_loss:
            mean, var = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
            target = (target - mean) / (var + 1.0e-6) ** 0.5
        target = target.repeat(pred.shape[0] // target.shape[0], 1, 1)
        loss = ((pred - target) ** 2).mean(dim=-1)
        return (loss * mask).sum() / mask.sum(), pred, mask

    def encode(self, imgs: torch.Tensor, mask: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        m = self.model
        # (M, L) -> (groups, B, 1, h, w), 1 where visible
        visible = (1 - mask).view(-1, imgs.shape[0], 1, *m.grid_size)
        stage1 = dense_conv_stage(m.blocks1, dense_patch_embed(m.patch_embed1, imgs), visible)
        stage2 = dense_conv_stage(m.blocks2, dense_patch_embed(m.patch_embed2, stage1), visible)
        x = dense_patch_embed(m.patch_embed3, stage2)
        P = m.num_prefix_tokens
        x = m.patch_embed4(x.flatten(2).permute(0, 2, 1)) + m.pos_embed[:, P:]
        joints = [] if P else [(m.stage1_output_decode, stage1), (m.stage2_output_decode, stage2)]
        skips = [conv(decode, stage, stride=decode.stride).flatten(2).permute(0, 2, 1) for decode, stage in joints]
        x, *skips = (gather(t, ids_keep) for t in (x, *skips))
        if P:  # ConvMAE-v2
            cls_token: Any = m.cls_token
            x = torch.cat([(cls_token + m.pos_embed[:, :P]).repeat(len(x), 1, 1), x], dim=1)
        for block in m.blocks3:
            x = dense_transformer_block(block, x)
        return m.norm(sum(skips, x))

    def decode(self, latent: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        m = self.model
        P = m.num_prefix_tokens
        x = m.decoder_embed(latent)
        prefix, x = x[:, :P], x[:, P:]
        mask_tokens = m.mask_token.repeat(x.shape[0], ids_restore.shape[1] - x.shape[1], 1)
        x = torch.cat([prefix, gather(torch.cat([x, mask_tokens], dim=1), ids_restore)], dim=1) + m.decoder_pos_embed
        for block in m.decoder_blocks:
            x = dense_transformer_block(block, x)
        return m.decoder_pred(m.decoder_norm(x[:, P:]))


def gather(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Tokens `(B, L, C)` at ids `(M, N)`, x repeated for each group."""
    x = x.repeat(ids.shape[0] // x.shape[0], 1, 1)
    return torch.gather(x, dim=1, index=ids.unsqueeze(-1).repeat(1, 1, x.shape[-1]))


def conv(layer: nn.Conv2d, x: torch.Tensor, **options: Any) -> torch.Tensor:
    """A convolution with its weight in PyTorch's default memory format, as published; ours are channels-last."""
    return F.conv2d(x, layer.weight.contiguous(), layer.bias, **options)


def dense_patch_embed(embed: Any, x: torch.Tensor) -> torch.Tensor:
    x = conv(embed.proj, x, stride=embed.proj.stride)
    x = embed.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return embed.act(x)


def dense_conv_stage(blocks: nn.ModuleList, x: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens x `(B, C, H, W)`; visible `(groups, B, 1, h, w)` on the grid of stage 3, None if all of them are."""
    masks = None
    if visible is not None:
        scale = x.shape[-1] // visible.shape[-1]
        masks = visible.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
    for block in blocks:
        x = dense_conv_block(block, x, masks)
    return x


def dense_conv_block(block: Any, x: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """Tokens x `(B, C, H, W)`, masks `(groups, B, 1, H, W)`."""
    y = conv(block.conv1, block.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    if masks is None:
        y = depthwise(block.attn, y)
    elif len(masks) == 1:
        y = depthwise(block.attn, masks[0] * y)
    else:
        y = reduce(torch.add, (mask * depthwise(block.attn, mask * y) for mask in masks))
    x = x + block.drop_path(conv(block.conv2, y))
    y = block.norm2(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return x + block.drop_path(conv(block.mlp.fc2, block.mlp.act(conv(block.mlp.fc1, y))))


def depthwise(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return conv(layer, x, padding=layer.padding, groups=layer.groups)


def dense_transformer_block(block: Any, x: torch.Tensor) -> torch.Tensor:
    B, N, C = x.shape
    attn = block.attn
    # (B, N, 3 * C) -> (3, B, heads, N, d)
    qkv = attn.qkv(block.norm1(x)).reshape(B, N, 3, attn.num_heads, C // attn.num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    weights = (q @ k.transpose(-2, -1) * attn.scale).softmax(dim=-1)
    x = x + attn.proj((weights @ v).transpose(1, 2).reshape(B, N, C))
    return x + block.mlp.fc2(block.mlp.act(block.mlp.fc1(block.norm2(x))))


class MaskedAutoencoderViT(nn.Module):
    """MAE ViT-B (arXiv:2111.06377) of timm's blocks, without fused attention, as published."""

    pos_embed: torch.Tensor
    decoder_pos_embed: torch.Tensor

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
    ):
        super().__init__()
        self.patch_embed = PatchEmbed(img_size, patch_size, embed_dim=embed_dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(1, 1, decoder_embed_dim) * 0.02)
        self.register_buffer("pos_embed", sincos_pos_embed(embed_dim, self.patch_embed.grid_size))
        self.register_buffer("decoder_pos_embed", sincos_pos_embed(decoder_embed_dim, self.patch_embed.grid_size))

        def blocks(dim: int, depth: int, num_heads: int) -> nn.Sequential:
            return nn.Sequential(*(Block(dim, num_heads, qkv_bias=True) for _ in range(depth)))

        self.blocks = blocks(embed_dim, depth, num_heads)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.decoder_blocks = blocks(decoder_embed_dim, decoder_depth, decoder_num_heads)
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_embed_dim, patch_size**2 * 3)
        for block in (*self.blocks, *self.decoder_blocks):
            block.attn.fused_attn = False

    def forward(
        self, imgs: torch.Tensor, mask_ratio: float = 0.75, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.patch_embed(imgs) + self.pos_embed
        B, L, _ = x.shape
        if noise is None:
            noise = torch.rand(B, L, device=x.device)
        ids_keep, _, ids_restore, mask = MASKINGS["random"](noise, mask_ratio)
        x = torch.cat([self.cls_token.expand(B, -1, -1), gather(x, ids_keep)], dim=1)
        x = self.decoder_embed(self.norm(self.blocks(x)))
        patches = torch.cat([x[:, 1:], self.mask_token.expand(B, L + 1 - x.shape[1], -1)], dim=1)
        patches = gather(patches, ids_restore) + self.decoder_pos_embed
        x = self.decoder_blocks(torch.cat([x[:, :1], patches], dim=1))
        pred = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        target = F.unfold(imgs, self.patch_embed.patch_size, stride=self.patch_embed.patch_size).transpose(1, 2)
        mean, var = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        loss = ((pred - (target - mean) / (var + 1e-6).sqrt()) ** 2).mean(dim=-1)
        return (loss * mask).sum() / mask.sum(), pred, mask
