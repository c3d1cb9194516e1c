"""VideoConvMAE computed densely, masks multiplied in: a second opinion for the tests, the benchmark's baseline."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pretrain.benchmarks.baselines import dense_transformer_block, gather
from pretrain.models.video.autoencoder import VideoConvMAE
from pretrain.models.video.masking import tube_mask

__all__ = ["DenseVideoConvMAE"]


class DenseVideoConvMAE(nn.Module):
    """A model's forward pass on all tokens, in `(B, C, T, H, W)`, with 3-D convolutions and attention's N×N matrix.

    Written to be plain, not fast. Weights are shared with the given model.
    """

    def __init__(self, model: VideoConvMAE):
        super().__init__()
        self.model = model

    def forward(
        self, clips: torch.Tensor, mask_ratio: float = 0.9, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`pretrain.models.video.autoencoder.VideoConvMAE.forward`."""
        m = self.model
        if noise is None:
            noise = torch.rand(clips.shape[0], m.grid_size[0] * m.grid_size[1], device=clips.device)
        ids_keep, _, ids_restore, mask = tube_mask(noise, mask_ratio)
        pred = self.decode(self.encode(clips, mask, ids_keep), ids_restore)
        target = m.patchify(clips)
        if m.norm_pix_loss:
            pixels = target.view(*target.shape[:2], -1, m.in_chans)
            pixels = (pixels - pixels.mean(2, keepdim=True)) / (pixels.std(2, keepdim=True) + 1e-6)
            target = pixels.flatten(2)
        mask = mask.repeat(1, m.slots)
        loss = ((pred - target) ** 2).mean(dim=-1)
        return (loss * mask).sum() / mask.sum(), pred, mask

    def encode(self, clips: torch.Tensor, mask: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        m = self.model
        # (B, L) -> (B, 1, 1, h, w), 1 where visible: the same in every slot
        visible = (1 - mask).view(-1, 1, 1, *m.grid_size)
        x = F.conv3d(clips, m.patch_embed1.proj.weight, m.patch_embed1.proj.bias, stride=m.patch_embed1.proj.stride)
        stage1 = conv_stage(m.blocks1, channels_last(m.patch_embed1, x), visible)
        stage2 = conv_stage(m.blocks2, frames_embedded(m.patch_embed2, stage1), visible)
        x = frames_embedded(m.patch_embed3, stage2)
        x = m.patch_embed4(x.flatten(2).transpose(1, 2)) + m.pos_embed
        # Of every slot, the visible patches
        L = m.grid_size[0] * m.grid_size[1]
        ids = torch.cat([ids_keep + slot * L for slot in range(m.slots)], dim=1)
        x = gather(x, ids)
        for block in m.blocks3:
            x = dense_transformer_block(block, x)
        if m.multi_scale:
            for decode, stage in ((m.stage1_output_decode, stage1), (m.stage2_output_decode, stage2)):
                x = x + gather(framewise(decode, stage).flatten(2).transpose(1, 2), ids)
        return m.norm(x)

    def decode(self, latent: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        m = self.model
        B, L = ids_restore.shape
        x = m.decoder_embed(latent).view(B, m.slots, -1, m.mask_token.shape[-1])
        slots = [torch.cat([slot, m.mask_token.repeat(B, L - slot.shape[1], 1)], dim=1) for slot in x.unbind(1)]
        x = torch.cat([gather(slot, ids_restore) for slot in slots], dim=1) + m.decoder_pos_embed
        for block in m.decoder_blocks:
            x = dense_transformer_block(block, x)
        return m.decoder_pred(m.decoder_norm(x))


def framewise(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A 2-D convolution of every time slot of x `(B, C, T, H, W)`."""
    return F.conv3d(x, layer.weight.contiguous().unsqueeze(2), layer.bias, stride=(1, *layer.stride))


def channels_last(embed: Any, x: torch.Tensor) -> torch.Tensor:
    """Norm and activation of a patch embedding on `(B, C, T, H, W)`."""
    return embed.act(embed.norm(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3))


def frames_embedded(embed: Any, x: torch.Tensor) -> torch.Tensor:
    return channels_last(embed, framewise(embed.proj, x))


def conv_stage(blocks: Iterable[Any], x: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Tokens x `(B, C, T, H, W)`; visible `(B, 1, 1, h, w)` on the grid of stage 3."""
    scale = x.shape[-1] // visible.shape[-1]
    mask = visible.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
    for block in blocks:
        y = block.norm1(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        y = mask * framewise(block.conv1, y)
        weight = block.attn.weight.contiguous()
        weight = weight.unsqueeze(2) if weight.ndim == 4 else weight
        padding = (weight.shape[2] // 2, *block.attn.padding[-2:])
        y = F.conv3d(y, weight, block.attn.bias, padding=padding, groups=len(weight))
        x = x + framewise(block.conv2, y)
        y = block.norm2(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        x = x + framewise(block.mlp.fc2, block.mlp.act(framewise(block.mlp.fc1, y)))
    return x
