"""ConvMAE (arXiv:2205.03892) and FastConvMAE: masked autoencoders with a hybrid convolution-transformer encoder.

The encoder computes visible tokens only, in all three stages. That is exact: apart from the depthwise convolution,
whose input is masked (:mod:`pretrain.models.masked_conv`), everything in stages 1 and 2 works on one token or on the
tokens of one patch. FastConvMAE's four complementary masks simply are four views of each image.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.layers import Attention, Block
from pretrain.models.masked_conv import VisibleConv
from pretrain.models.masking import PatchMask, complementary_mask, random_mask, take_patches
from pretrain.models.pos_embed import sincos_pos_embed
from pretrain.models.recompute import norm_linear
from pretrain.models.trunk import ConvViTTrunk, per_stage, run_blocks

__all__ = ["DECODER_PREFIXES", "MaskedAutoencoderConvViT", "ReconstructionLoss", "encoder_weights"]

MASKINGS = {"random": random_mask, "complementary": complementary_mask}
DEFAULT_MASK_RATIO = 0.75
# What pretrained files may lack: only pretraining needs it.
DECODER_PREFIXES = ("decoder_", "mask_token")


class MaskedAutoencoderConvViT(ConvViTTrunk):
    """ConvMAE, and with `masking="complementary"` FastConvMAE. Parameter names are those of the published files.

    Shapes below: B images, L patches at the total stride, K of them visible, and M masked views: `M = B`, or `4 B`,
    group-major, with complementary masking.

    Args:
        img_size: height and width in pixels, or one number for both; divisible by the total stride.
        patch_size: downsampling of each stage; the product is the total stride, which is the size of a masked patch.
        in_chans: channels of the images.
        embed_dim, depth, mlp_ratio: of each of the three stages.
        num_heads: attention heads of stage 3.
        decoder_embed_dim, decoder_depth, decoder_num_heads: of the transformer decoder.
        norm_pix_loss: predict patches normalised by their own mean and variance.
        masking: "random", or "complementary": four masks that together show every patch exactly once.
        act_checkpoint: recompute the blocks' activations in the backward pass: one bool, or one for each stage; the
            decoder follows the last.
        fp32_decoder: keep the decoder out of autocast, as the authors did when fp16 losses overflowed.

    Raises:
        UserError: a size does not divide, or `masking` is neither of the two.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: Sequence[int] = (4, 2, 2),
        in_chans: int = 3,
        embed_dim: Sequence[int] = (256, 384, 768),
        depth: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float | Sequence[float] = 4.0,
        norm_pix_loss: bool = False,
        masking: str = "random",
        act_checkpoint: bool | Sequence[bool] = False,
        fp32_decoder: bool = False,
    ):
        super().__init__(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            act_checkpoint=act_checkpoint,
        )
        if masking not in MASKINGS:
            raise UserError(f"masking must be one of {', '.join(MASKINGS)}, got {masking!r}.")
        self.masking = masking
        self.norm_pix_loss = norm_pix_loss
        self.fp32_decoder = fp32_decoder
        self.in_chans = in_chans
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.check_image_size(*self.img_size)
        self.grid_size = (self.img_size[0] // self.stride, self.img_size[1] // self.stride)

        dim1, dim2, dim3 = self.embed_dim
        _, p2, p3 = self.patch_size
        self.stage1_output_decode = nn.Conv2d(dim1, dim3, kernel_size=p2 * p3, stride=p2 * p3)
        self.stage2_output_decode = nn.Conv2d(dim2, dim3, kernel_size=p3, stride=p3)
        self.pos_embed = nn.Parameter(sincos_pos_embed(dim3, self.grid_size), requires_grad=False)
        self.norm = nn.LayerNorm(dim3, eps=1e-6)

        self.decoder_embed = nn.Linear(dim3, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_pos_embed = nn.Parameter(sincos_pos_embed(decoder_embed_dim, self.grid_size), requires_grad=False)
        # As published, the decoder takes the first stage's ratio.
        decoder_mlp_ratio = per_stage("mlp_ratio", mlp_ratio)[0]
        self.decoder_blocks = nn.ModuleList(
            Block(
                decoder_embed_dim,
                Attention(decoder_embed_dim, decoder_num_heads),
                decoder_mlp_ratio,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
            )
            for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_embed_dim, self.stride**2 * in_chans)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embed3.proj.weight.data.flatten(1))
        nn.init.normal_(self.mask_token, std=0.02)
        # Convolutions run as linear layers over (row, column, channel): with channels last in memory as well, bringing
        # their weights into that order moves whole runs of channels and costs next to nothing.
        self.to(memory_format=torch.channels_last)

    def forward(
        self, imgs: torch.Tensor, mask_ratio: float = DEFAULT_MASK_RATIO, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            imgs: `(B, in_chans, H, W)`, normalised, of size `img_size`.
            mask_ratio: share of the patches that is masked; 0.75 with complementary masking.
            noise: `(B, L)`, fixes the masks: patches of small noise are kept. Uniform by default.

        Returns:
            loss: mean squared error over the values of masked patches, a scalar.
            pred: all patches `(M, L, stride * stride * in_chans)`, pixels in the order (row, column, channel);
                normalised per patch if `norm_pix_loss`.
            mask: `(M, L)`, 0 where visible and 1 where masked.

        Raises:
            UserError: images of another size or channel count, a mask ratio out of range, or one that masks nothing.
        """
        patches, patch_mask = self._start(imgs, mask_ratio, noise)
        latent = self._encode(patches, patch_mask.ids_keep)
        with self._decoder_precision(imgs.device.type):
            pred = self._predict(self._decode(latent, patch_mask.ids_restore))
        return self._loss(patches, take_patches(pred, patch_mask.ids_masked), patch_mask), pred, patch_mask.mask

    def forward_loss(
        self, imgs: torch.Tensor, mask_ratio: float = DEFAULT_MASK_RATIO, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of :meth:`forward` without the predictions it does not need; what a training step runs."""
        patches, patch_mask = self._start(imgs, mask_ratio, noise)
        latent = self._encode(patches, patch_mask.ids_keep)
        with self._decoder_precision(imgs.device.type):
            tokens = self._decode(latent, patch_mask.ids_restore)
            pred = self._predict(take_patches(tokens, patch_mask.ids_masked))
        return self._loss(patches, pred, patch_mask)

    def forward_encoder(
        self, imgs: torch.Tensor, mask_ratio: float = DEFAULT_MASK_RATIO, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The encoder alone; arguments and errors as in :meth:`forward`.

        Returns:
            latent: visible patches `(M, K, embed_dim[2])` in the order of their noise.
            mask: `(M, L)`, 0 where visible and 1 where masked.
            ids_restore: `(M, L)`, brings visible patches followed by masked ones back into image order.
        """
        patches, patch_mask = self._start(imgs, mask_ratio, noise)
        return self._encode(patches, patch_mask.ids_keep), patch_mask.mask, patch_mask.ids_restore

    def patchify(self, imgs: torch.Tensor) -> torch.Tensor:
        """Images `(B, in_chans, H, W)` to patches `(B, L, stride * stride * in_chans)`."""
        return rearrange(imgs, "b c (h p) (w q) -> b (h w) (p q c)", p=self.stride, q=self.stride)

    def unpatchify(self, patches: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`patchify`."""
        return rearrange(
            patches, "b (h w) (p q c) -> b c (h p) (w q)", h=self.grid_size[0], p=self.stride, q=self.stride
        )

    def _start(
        self, imgs: torch.Tensor, mask_ratio: float, noise: torch.Tensor | None
    ) -> tuple[torch.Tensor, PatchMask]:
        """Checks the input, cuts images into patches and draws the masks."""
        if tuple(imgs.shape[1:]) != (self.in_chans, *self.img_size):
            raise UserError(
                f"Images of shape {tuple(imgs.shape)} do not fit a model of {self.in_chans} channels and img_size "
                f"{self.img_size}; resize them or build the model with another img_size."
            )
        shape = (imgs.shape[0], self.grid_size[0] * self.grid_size[1])
        if noise is None:
            noise = torch.rand(shape, device=imgs.device)
        elif noise.shape != shape:
            raise UserError(f"noise must have shape {shape}, one value for each patch, got {tuple(noise.shape)}.")
        return self.patchify(imgs), MASKINGS[self.masking](noise, mask_ratio)

    def _encode(self, patches: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        """Patches `(B, L, ...)` to latent `(M, K, embed_dim[2])`."""
        p1, p2, p3 = self.patch_size
        # Within a patch, stage-1 tokens lie in rows of its p2 * p3 by p2 * p3 square.
        pixels = rearrange(
            take_patches(patches, ids_keep),
            "m k (r r1 col c1 c) -> m k (r col) (r1 c1 c)",
            r1=p1,
            c1=p1,
            r=p2 * p3,
            col=p2 * p3,
        )
        stage1 = self._conv_stage(0, self.patch_embed1.embed(pixels), ids_keep)
        # One copy serves the patch embedding of stage 2 and, flattened further, stage1_output_decode.
        stage1 = rearrange(stage1, "m k (r3 r2 c3 c2) c -> m k (r3 c3) (r2 c2 c)", r2=p2, c2=p2, r3=p3, c3=p3)
        stage2 = self._conv_stage(1, self.patch_embed2.embed(stage1), ids_keep)
        # (M, K, p3 * p3 * C2) -> (M, K, C3)
        x = self.patch_embed4(self.patch_embed3.embed(stage2.flatten(2)))
        x = self.forward_blocks(2, x + self.pos_embed[0][ids_keep])
        # (O, C, row, column) -> (O, row, column, C), then into the order of the tokens
        weight1 = self.stage1_output_decode.weight.permute(0, 2, 3, 1)
        weight1 = rearrange(weight1, "o (r3 r2) (c3 c2) c -> o (r3 c3 r2 c2 c)", r3=p3, c3=p3)
        weight2 = rearrange(self.stage2_output_decode.weight, "o c r3 c3 -> o (r3 c3 c)")
        x = x + F.linear(stage1.flatten(2), weight1, self.stage1_output_decode.bias)
        x = x + F.linear(stage2.flatten(2), weight2, self.stage2_output_decode.bias)
        return self.norm(x)

    def _conv_stage(self, stage: int, x: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        """Convolution blocks of stage 0 or 1 on tokens `(M, K, side * side, C)`."""
        return self.forward_blocks(stage, x, VisibleConv(ids_keep, self.grid_size, side=math.isqrt(x.shape[2])))

    def _decode(self, latent: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        """Latent `(M, K, embed_dim[2])` to decoder tokens `(M, L, decoder_embed_dim)`, before `decoder_norm`."""
        x = self.decoder_embed(latent)
        mask_tokens = self.mask_token.to(x.dtype).expand(x.shape[0], ids_restore.shape[1] - x.shape[1], -1)
        x = take_patches(torch.cat([x, mask_tokens], dim=1), ids_restore) + self.decoder_pos_embed
        return run_blocks(self.decoder_blocks, x, act_checkpoint=self.training and self.act_checkpoint[2])

    def _predict(self, tokens: torch.Tensor) -> torch.Tensor:
        return norm_linear(tokens, self.decoder_norm, self.decoder_pred)

    def _decoder_precision(self, device_type: str) -> AbstractContextManager[Any]:
        return torch.autocast(device_type, enabled=False) if self.fp32_decoder else nullcontext()

    def _loss(self, patches: torch.Tensor, pred: torch.Tensor, patch_mask: PatchMask) -> torch.Tensor:
        """Mean squared error of predictions `(M, L - K, ...)` of the masked patches."""
        if not pred.shape[1]:
            raise UserError("mask_ratio masks no patch, so there is nothing to reconstruct; raise it.")
        dtype = torch.promote_types(patches.dtype, torch.float32)
        target = take_patches(patches, patch_mask.ids_masked).to(dtype)
        if self.norm_pix_loss:
            var, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (var + 1e-6).sqrt()
        return F.mse_loss(pred.to(dtype), target)


class ReconstructionLoss(nn.Module):
    """A module whose `forward` is the model's :meth:`~MaskedAutoencoderConvViT.forward_loss`, for DDP and compilers.

    Args:
        model: :class:`MaskedAutoencoderConvViT`, or its like for clips.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.model.forward_loss(*args, **kwargs)


def encoder_weights(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What other models start from: the weights of :class:`MaskedAutoencoderConvViT` without its decoder."""
    return {name: t for name, t in state_dict.items() if not name.startswith(DECODER_PREFIXES)}
