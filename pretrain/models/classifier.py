"""ConvViT for image classification (arXiv:2205.03892): the unmasked trunk, pooling, a norm and a linear head.

Parameter names are those of the published fine-tuned files. The methods beside `forward` are those timm's users expect
of a model (`forward_features`, `forward_head`, `forward_intermediates`, `reset_classifier` …).
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from timm.layers import trunc_normal_
from timm.models._features import feature_take_indices
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.pos_embed import resize_pos_embed
from pretrain.models.trunk import ConvViTTrunk

__all__ = ["ConvViT"]

# timm's names of what the published code calls global_pool; "" leaves the tokens as they are.
POOLINGS = {True: "avg", False: "token", "avg": "avg", "token": "token", "": ""}


class ConvViT(ConvViTTrunk):
    """The classifier: `head(fc_norm(mean over tokens))`, or with `global_pool=False` `head(norm(x)[:, 0])`.

    There is no class token: without pooling, token 0 is the patch in the upper left corner, as in the published
    linear-probe command. Pooling is the default here.

    Args:
        img_size: height and width in pixels, or one number for both; divisible by the total stride. Other sizes can be
            passed to `forward`: position embeddings are then resized on the fly.
        patch_size: downsampling of each stage; the product is the total stride.
        num_classes: of the head; 0 for none.
        embed_dim, depth, mlp_ratio: of each of the three stages.
        num_heads: attention heads of stage 3.
        drop_rate: dropout of what enters the head.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over all blocks.
        global_pool: True or "avg", False or "token", or "" for no pooling (tokens go through norm and head each).
        act_checkpoint: recompute the blocks' activations in the backward pass: one bool, or one for each stage.

    Attributes:
        num_prefix_tokens: tokens P that stand before the patches in stage 3; timm's name.

    Raises:
        UserError: a size does not divide, or `global_pool` is none of these.
    """

    num_prefix_tokens: ClassVar[int] = 0
    norm: nn.Module
    fc_norm: nn.Module
    head: nn.Module

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: Sequence[int] = (4, 2, 2),
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: Sequence[int] = (256, 384, 768),
        depth: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        mlp_ratio: float | Sequence[float] = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: bool | str = True,
        act_checkpoint: bool | Sequence[bool] = False,
    ):
        super().__init__(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            act_checkpoint=act_checkpoint,
        )
        self.in_chans, self.num_classes = in_chans, num_classes
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.check_image_size(*self.img_size)
        self.grid_size = (self.img_size[0] // self.stride, self.img_size[1] // self.stride)
        self.num_features = self.head_hidden_size = self.embed_dim[-1]
        self.feature_info = _feature_info(self.embed_dim, self.patch_size)

        L = self.grid_size[0] * self.grid_size[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, self.num_prefix_tokens + L, self.num_features))
        self._set_pooling(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self._init_weights()

    def _set_pooling(self, global_pool: bool | str) -> None:
        if global_pool not in POOLINGS:
            raise UserError(f"global_pool must be True ('avg'), False ('token') or '', got {global_pool!r}.")
        self.global_pool = POOLINGS[global_pool]
        pools = self.global_pool == "avg"
        self.norm, self.fc_norm = (_norm_or_nothing(self.num_features, norms) for norms in (not pools, pools))

    def _init_weights(self) -> None:
        trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, imgs: torch.Tensor) -> torch.Tensor:
        """
        Args:
            imgs: `(B, in_chans, H, W)`, normalised; H and W divisible by the total stride.

        Returns:
            logits `(B, num_classes)`.

        Raises:
            UserError: H or W is not divisible by the total stride.
        """
        return self.forward_head(self.forward_features(imgs))

    def forward_features(self, imgs: torch.Tensor) -> torch.Tensor:
        """Tokens `(B, P + L, embed_dim[2])` of the last block; normed already, except with average pooling."""
        return self.norm(self._forward_stage3(self.forward_conv_stages(imgs)[2]))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Pools tokens `(B, P + L, C)`, applies `fc_norm` and, unless `pre_logits`, the head."""
        if self.global_pool:
            x = x[:, self.num_prefix_tokens :].mean(dim=1) if self.global_pool == "avg" else x[:, 0]
        x = self.fc_norm(x)
        return x if pre_logits else self.head(self.head_drop(x))

    def _forward_stage3(self, x: torch.Tensor) -> torch.Tensor:
        """Adds positions to a grid `(B, h, w, C)` and runs the blocks on its tokens, to `(B, P + h * w, C)`."""
        grid_size = (x.shape[1], x.shape[2])
        pos_embed = resize_pos_embed(self.pos_embed[:, self.num_prefix_tokens :], self.grid_size, grid_size)
        return self.forward_blocks(2, self.add_prefix(x.flatten(1, 2) + pos_embed))

    def add_prefix(self, x: torch.Tensor) -> torch.Tensor:
        """Patches `(B, L, C)` that enter the blocks of stage 3, with the prefix tokens before them."""
        return x

    # What follows is timm's interface.

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """Outputs of the stages, as timm's `features_only=True` and its users ask for them.

        Args:
            x: images `(B, in_chans, H, W)`.
            indices: stages 0, 1, 2, as a list or as the number of last ones; all by default.
            norm: apply the final norm to the last stage.
            stop_early: has no effect, there is little to stop.
            output_fmt: "NCHW" or "NHWC".
            intermediates_only: leave out the first of the two results.

        Returns:
            what :meth:`forward_features` returns, and the list of grids `(B, C, h, w)`; or the list alone.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise UserError(f"output_fmt must be NCHW or NHWC, got {output_fmt!r}.")
        taken, _ = feature_take_indices(3, indices)
        stage1, stage2, x = self.forward_conv_stages(x)
        grid_size = x.shape[1:3]
        x = self._forward_stage3(x)
        last = self.fc_norm(self.norm(x)) if norm else x
        last = last[:, self.num_prefix_tokens :].unflatten(1, grid_size)
        # (B, h, w, C) -> (B, C, h, w)
        grids = [g.permute(0, 3, 1, 2) if output_fmt == "NCHW" else g for g in (stage1, stage2, last)]
        intermediates = [grids[i] for i in taken]
        return intermediates if intermediates_only else (self.norm(x), intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Takes off what :meth:`forward_intermediates` does not need; returns the stages to ask it for."""
        taken, _ = feature_take_indices(3, indices)
        if prune_norm:
            self.norm = self.fc_norm = nn.Identity()
        if prune_head:
            self.head, self.num_classes = nn.Identity(), 0
        return taken

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: bool | str | None = None) -> None:
        """A new head for `num_classes`, 0 for none; with another pooling also a new norm."""
        device = self.pos_embed.device
        if global_pool is not None and POOLINGS.get(global_pool) != self.global_pool:
            self._set_pooling(global_pool)
            self.norm, self.fc_norm = self.norm.to(device), self.fc_norm.to(device)
        self.num_classes = num_classes
        self.head = nn.Identity()
        if num_classes:
            head = nn.Linear(self.num_features, num_classes).to(device)
            trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
            self.head = head

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict:
        """Layers for layer-wise learning rates: the stem with stages 1 and 2, each block of stage 3, the rest."""
        # What matches nothing (norm, fc_norm, head) becomes the last layer.
        stem = r"^cls_token|^pos_embed|^patch_embed\d|^blocks[12]"
        return dict(stem=stem, blocks=r"^blocks3" if coarse else r"^blocks3\.(\d+)")


def _norm_or_nothing(dim: int, norms: bool) -> nn.Module:
    return nn.LayerNorm(dim, eps=1e-6) if norms else nn.Identity()


def _feature_info(embed_dim: Sequence[int], patch_size: Sequence[int]) -> list[dict]:
    """Channels and stride of each stage, for timm."""
    info, reduction = [], 1
    for stage, (channels, factor) in enumerate(zip(embed_dim, patch_size, strict=True), start=1):
        reduction *= factor
        info.append(dict(num_chs=channels, reduction=reduction, module=f"blocks{stage}"))
    return info
