"""Several targets for one masked autoencoder: a mixture of reconstructors (FastConvMAE), and mimicry (MR-MAE).

*Published*, without training code: FastConvMAE's "C+T" predicts, beside or in place of pixels, features of the whole
image from an exponential moving average of the encoder, from CLIP and from DINO, on the masked tokens; each target has
an independent block and head after shared ones. MR-MAE (arXiv:2303.05475) adds to the pixel loss one on the *visible*
tokens: the encoder's output through a linear head, against CLIP or DINO.

*Ours*: of the decoder's 8 blocks the last is each target's own; smooth L1 on layer-normalised features (no affine);
every weight is 1. The loss on visible tokens is 2 - 2 cos, as in the nearest open recipe (unmasked_teacher,
arXiv:2303.16058).
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.masking import PatchMask, take_patches
from pretrain.models.recompute import norm_linear
from pretrain.models.teachers import Teacher
from pretrain.names import MIMIC, PIXELS

__all__ = ["MixtureLoss", "Reconstructor", "add_target_heads"]


class Reconstructor(nn.Module):
    """What one target has of its own: a decoder block, a norm and a linear head."""

    def __init__(self, block: nn.Module, decoder_embed_dim: int, dim: int):
        super().__init__()
        self.block = block
        self.norm = nn.LayerNorm(decoder_embed_dim, eps=1e-6)
        self.pred = nn.Linear(decoder_embed_dim, dim)


def add_target_heads(model: MaskedAutoencoderConvViT, dims: Mapping[str, int | None], mimic_dim: int | None) -> None:
    """Gives a model what it needs for its targets, newly initialised.

    Pixels keep the published names: the last of `decoder_blocks`, `decoder_norm` and `decoder_pred` are theirs. Where
    they are no target, these are taken away. The other targets get `decoder_targets.NAME`, and mimicry `mimic_head`.

    Args:
        dims: channels of each target's features, None for :data:`PIXELS`.
        mimic_dim: channels of what visible tokens mimic; None for no such loss.
    """
    if PIXELS not in dims:
        del model.decoder_blocks[-1], model.decoder_norm, model.decoder_pred
    width = model.decoder_embed.out_features
    heads = {
        name: Reconstructor(model.make_decoder_block(), width, dim) for name, dim in dims.items() if dim is not None
    }
    added: list[nn.Module] = []
    if heads:
        model.decoder_targets = nn.ModuleDict(heads)
        added.append(model.decoder_targets)
    if mimic_dim is not None:
        model.mimic_head = nn.Linear(model.embed_dim[2], mimic_dim)
        added.append(model.mimic_head)
    for module in (m for new in added for m in new.modules()):
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


class MixtureLoss(nn.Module):
    """The weighted sum of a model's losses, for DDP and compilers.

    Args:
        model: with the heads of :func:`add_target_heads`.
        weights: of each target's loss, and under :data:`MIMIC` of the one on visible tokens.
        teachers: of everything but pixels, by the same names; may be the same object under several, which runs once.

    Attributes:
        names: of the losses, in order.
    """

    def __init__(self, model: MaskedAutoencoderConvViT, weights: Mapping[str, float], teachers: Mapping[str, Teacher]):
        super().__init__()
        self.model, self.weights = model, dict(weights)
        self.names = tuple(weights)
        self._teachers = dict(teachers)  # no submodules: they are neither trained nor synchronised

    def forward(
        self, imgs: torch.Tensor, mask_ratio: float, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            imgs, mask_ratio, noise: as for the model.

        Returns:
            the weighted sum, and without gradient each loss `(losses,)` in the order of `names`.

        Raises:
            UserError: as the model.
        """
        losses = self.losses(imgs, mask_ratio, noise)
        total = sum(weight * losses[name] for name, weight in self.weights.items())
        assert isinstance(total, torch.Tensor), "there is a target"
        return total, torch.stack([losses[name] for name in self.names]).detach()

    def losses(
        self, imgs: torch.Tensor, mask_ratio: float, noise: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Each loss, unweighted; arguments as in :meth:`forward`."""
        model = self.model
        patches, patch_mask = model.start(imgs, mask_ratio, noise)
        features = self._features(imgs)
        latent = model.encode(patches, patch_mask.ids_keep)
        losses = {}
        if MIMIC in self.weights:
            losses[MIMIC] = self._mimic_loss(latent, features[MIMIC], patch_mask)
        if self.weights.keys() == {MIMIC}:
            return losses
        shared = model.decoder_blocks[:-1] if PIXELS in self.weights else model.decoder_blocks
        with model.decoder_precision(imgs.device.type):
            tokens = model.run_decoder(shared, model.embed_decoder(latent, patch_mask.ids_restore))
            for name in self.names:
                if name == PIXELS:
                    pred = model.predict_pixels(self._masked_tokens(model.decoder_blocks[-1], tokens, patch_mask))
                    losses[name] = model.pixel_loss(patches, pred, patch_mask)
                elif name != MIMIC:
                    head = cast(Reconstructor, model.decoder_targets[name])
                    losses[name] = self._feature_loss(head, tokens, features[name], patch_mask)
        return losses

    def _features(self, imgs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features `(B, L, dim)` of the whole images by name."""
        found: dict[int, torch.Tensor] = {}
        for teacher in self._teachers.values():
            if id(teacher) not in found:
                found[id(teacher)] = teacher(imgs, self.model.grid_size)
        return {name: found[id(teacher)] for name, teacher in self._teachers.items()}

    def _masked_tokens(self, block: nn.Module, tokens: torch.Tensor, patch_mask: PatchMask) -> torch.Tensor:
        """A target's own block on all tokens, then the masked ones `(M, L - K, decoder_embed_dim)`."""
        tokens = self.model.run_decoder([block], tokens)[:, self.model.num_prefix_tokens :]
        return take_patches(tokens, patch_mask.ids_masked)

    def _feature_loss(
        self, head: Reconstructor, tokens: torch.Tensor, features: torch.Tensor, patch_mask: PatchMask
    ) -> torch.Tensor:
        pred = norm_linear(self._masked_tokens(head.block, tokens, patch_mask), head.norm, head.pred)
        target = take_patches(F.layer_norm(features, features.shape[-1:]), patch_mask.ids_masked)
        return F.smooth_l1_loss(pred.to(target.dtype), target).clone()  # see PixelDecoder.reconstruction_error

    def _mimic_loss(self, latent: torch.Tensor, features: torch.Tensor, patch_mask: PatchMask) -> torch.Tensor:
        pred = self.model.mimic_head(latent[:, self.model.num_prefix_tokens :])
        target = take_patches(features, patch_mask.ids_keep)
        return (2 - 2 * F.cosine_similarity(pred.to(target.dtype), target, dim=-1)).mean()
