"""ConvMAE-v2, the model of MR-MAE (arXiv:2303.05475): ConvMAE with a class token in stage 3 and without joined stages.

*Published*: the class token, and that stages 1 and 2 are not added to the encoder's output, so files have no
`stage*_output_decode`. Sizes of the published L and H files differ from ConvMAE's table; read them off the file.
*Ours*, as no code was released: the class token has the first entry of the position tables, zeros in pretraining, and
passes through the decoder, both as in MAE (arXiv:2111.06377).
"""

from typing import Any

import torch
from torch import nn

from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.classifier import ConvViT
from pretrain.models.encoder import ConvMAEEncoder

__all__ = ["ConvMAEv2Encoder", "ConvViTv2", "MaskedAutoencoderConvViTv2"]


class ConvMAEv2Encoder(ConvMAEEncoder):
    """The encoder; arguments and shapes as in the base class, with one prefix token."""

    num_prefix_tokens = 1

    def make_joints(self) -> None:
        """The class token; nothing joins the stages."""
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim[2]))

    def add_prefix(self, x: torch.Tensor) -> torch.Tensor:
        return _with_class_token(x, self.cls_token, self.pos_embed)

    def join_stages(self, x: torch.Tensor, stage1: torch.Tensor, stage2: torch.Tensor) -> torch.Tensor:
        """Stage 3 alone."""
        return x


class MaskedAutoencoderConvViTv2(ConvMAEv2Encoder, MaskedAutoencoderConvViT):
    """ConvMAE-v2 in pretraining, with the arguments of :class:`~pretrain.models.autoencoder.MaskedAutoencoderConvViT`.

    What distinguishes MR-MAE's training, the loss on visible tokens, is in :mod:`pretrain.models.mixture`.
    """

    def _init_weights(self) -> None:
        super()._init_weights()
        nn.init.normal_(self.cls_token, std=0.02)


class ConvViTv2(ConvViT):
    """The classifier of ConvMAE-v2: with `global_pool=False` the class token is classified, `head(norm(x)[:, 0])`,
    otherwise the mean of the patches, which have attended to it."""

    num_prefix_tokens = 1

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.num_features))
        nn.init.normal_(self.cls_token, std=0.02)

    def add_prefix(self, x: torch.Tensor) -> torch.Tensor:
        return _with_class_token(x, self.cls_token, self.pos_embed)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token"}


def _with_class_token(x: torch.Tensor, cls_token: torch.Tensor, pos_embed: torch.Tensor) -> torch.Tensor:
    """Patches `(M, N, C)` to `(M, 1 + N, C)`, the class token, with its position added, first."""
    token = (cls_token + pos_embed[:, :1]).to(x.dtype).expand(x.shape[0], -1, -1)
    return torch.cat([token, x], dim=1)
