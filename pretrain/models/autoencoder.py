"""ConvMAE (arXiv:2205.03892) and FastConvMAE: masked autoencoders with a hybrid convolution-transformer encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pretrain.models.decoder import PixelDecoder
from pretrain.models.encoder import DEFAULT_MASK_RATIO, ConvMAEEncoder
from pretrain.models.masking import PatchMask, take_patches
from pretrain.names import per_stage

__all__ = ["DECODER_PREFIXES", "MaskedAutoencoderConvViT", "ReconstructionLoss", "encoder_weights"]

# What pretrained files may lack: only pretraining needs it.
DECODER_PREFIXES = ("decoder_", "mask_token", "mimic_head")


class MaskedAutoencoderConvViT(PixelDecoder, ConvMAEEncoder):
    """ConvMAE, and with `masking="complementary"` FastConvMAE. Parameter names are those of the published files.

    Shapes are named as in :class:`pretrain.models.encoder.ConvMAEEncoder`.

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

    decoder_targets: nn.ModuleDict  # of models with other targets than pixels (pretrain.models.mixture)
    mimic_head: nn.Linear

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
            img_size=img_size,
            in_chans=in_chans,
            masking=masking,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            act_checkpoint=act_checkpoint,
        )
        self.norm_pix_loss = norm_pix_loss
        self.fp32_decoder = fp32_decoder
        self.add_decoder(
            decoder_embed_dim,
            decoder_depth,
            decoder_num_heads,
            # As published, the decoder takes the first stage's ratio.
            per_stage("mlp_ratio", mlp_ratio)[0],
            positions=self.fixed_positions(decoder_embed_dim),
            values=self.stride**2 * in_chans,
        )
        self._init_weights()

    def _init_weights(self) -> None:
        self.init_pretraining_weights()

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
        patches, patch_mask = self.start(imgs, mask_ratio, noise)
        latent = self.encode(patches, patch_mask.ids_keep)
        with self.decoder_precision(imgs.device.type):
            pred = self.predict_pixels(self._decode(latent, patch_mask.ids_restore))
        return self.pixel_loss(patches, take_patches(pred, patch_mask.ids_masked), patch_mask), pred, patch_mask.mask

    def forward_loss(
        self, imgs: torch.Tensor, mask_ratio: float = DEFAULT_MASK_RATIO, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of :meth:`forward` without the predictions it does not need; what a training step runs."""
        patches, patch_mask = self.start(imgs, mask_ratio, noise)
        latent = self.encode(patches, patch_mask.ids_keep)
        with self.decoder_precision(imgs.device.type):
            tokens = self._decode(latent, patch_mask.ids_restore)
            pred = self.predict_pixels(take_patches(tokens, patch_mask.ids_masked))
        return self.pixel_loss(patches, pred, patch_mask)

    def embed_decoder(self, latent: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        """Latent `(M, P + K, embed_dim[2])` to what enters the decoder's blocks, `(M, P + L, decoder_embed_dim)`."""
        P = self.num_prefix_tokens
        x = self.decoder_embed(latent)
        prefix, x = x[:, :P], x[:, P:]
        mask_tokens = self.mask_token.to(x.dtype).expand(x.shape[0], ids_restore.shape[1] - x.shape[1], -1)
        x = take_patches(torch.cat([x, mask_tokens], dim=1), ids_restore)
        return (torch.cat([prefix, x], dim=1) if P else x) + self.decoder_pos_embed

    def _decode(self, latent: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        """Latent to decoder tokens of all patches `(M, L, decoder_embed_dim)`, before `decoder_norm`."""
        x = self.run_decoder(self.decoder_blocks, self.embed_decoder(latent, ids_restore))
        return x[:, self.num_prefix_tokens :]

    def pixel_loss(self, patches: torch.Tensor, pred: torch.Tensor, patch_mask: PatchMask) -> torch.Tensor:
        """Mean squared error of predictions `(M, L - K, ...)` of the masked patches."""
        target = take_patches(patches, patch_mask.ids_masked)
        target = target.to(torch.promote_types(target.dtype, torch.float32))
        if self.norm_pix_loss:
            var, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (var + 1e-6).sqrt()
        return self.reconstruction_error(pred, target)


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
