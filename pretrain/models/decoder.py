"""The transformer decoder of a masked autoencoder: what images (ConvMAE) and clips (VideoConvMAE) share of it."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.layers import Attention, Block, PatchEmbed
from pretrain.models.recompute import norm_linear
from pretrain.models.trunk import run_blocks

__all__ = ["PixelDecoder"]


class PixelDecoder(nn.Module):
    """A part of autoencoders, under the published names; the encoder is the other part.

    Attributes:
        fp32_decoder: keep the decoder out of autocast, as the authors did when fp16 losses overflowed.
    """

    fp32_decoder: bool
    embed_dim: tuple[Any, ...]
    act_checkpoint: tuple[Any, ...]
    patch_embed3: PatchEmbed

    def add_decoder(
        self, dim: int, depth: int, num_heads: int, mlp_ratio: float, positions: nn.Parameter, values: int
    ) -> None:
        """Adds the modules.

        Args:
            dim, depth, num_heads, mlp_ratio: of the decoder's blocks.
            positions: `(1, tokens, dim)`, added to what enters the blocks.
            values: that are predicted for each patch.
        """
        self.decoder_embed = nn.Linear(self.embed_dim[2], dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_pos_embed = positions
        self.decoder_num_heads, self.decoder_mlp_ratio = num_heads, mlp_ratio
        self.decoder_blocks = nn.ModuleList(self.make_decoder_block() for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder_pred = nn.Linear(dim, values)

    def make_decoder_block(self) -> Block:
        """A new block of the decoder's sizes."""
        dim = self.decoder_embed.out_features
        attention = Attention(dim, self.decoder_num_heads)
        return Block(dim, attention, self.decoder_mlp_ratio, norm_layer=partial(nn.LayerNorm, eps=1e-6))

    def init_pretraining_weights(self) -> None:
        """Initialises encoder and decoder as MAE (arXiv:2111.06377) does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # A view as long as the weight is contiguous, so before the next loop
        nn.init.xavier_uniform_(self.patch_embed3.proj.weight.data.view(self.embed_dim[2], -1))
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Convolutions run as linear layers over (row, column, channel): with channels last in memory as well,
                # bringing their weights into that order moves whole runs of channels and costs next to nothing.
                module.to(memory_format=torch.channels_last)

    def run_decoder(self, blocks: Iterable[nn.Module], x: torch.Tensor) -> torch.Tensor:
        """Some of the decoder's blocks on tokens `(M, N, decoder_embed_dim)`."""
        return run_blocks(blocks, x, act_checkpoint=self.training and self.act_checkpoint[2])

    def predict_pixels(self, tokens: torch.Tensor) -> torch.Tensor:
        """Decoder tokens `(M, N, decoder_embed_dim)` to the values of their patches."""
        return norm_linear(tokens, self.decoder_norm, self.decoder_pred)

    def decoder_precision(self, device_type: str) -> AbstractContextManager[Any]:
        """What the decoder runs in: the autocast around it, or float32."""
        return torch.autocast(device_type, enabled=False) if self.fp32_decoder else nullcontext()

    def reconstruction_error(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean squared error of predictions `(M, N, values)`, a scalar.

        Raises:
            UserError: there is no patch to predict.
        """
        if not pred.shape[1]:
            raise UserError("mask_ratio masks no patch, so there is nothing to reconstruct; raise it.")
        # Behind its scalar F.mse_loss keeps a tensor of all squares; a copy of the scalar does not.
        return F.mse_loss(pred.to(target.dtype), target).clone()
