"""The classifier of clips: the unmasked trunk, the mean of all tokens, a norm and a linear head."""

from collections.abc import Sequence

import torch
from timm.layers import trunc_normal_
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.layers import init_linear
from pretrain.models.video.positions import resize_clip_pos_embed, sincos_clip_pos_embed
from pretrain.models.video.trunk import VideoTrunk
from pretrain.names import POSITIONS

__all__ = ["VideoConvViT"]


class VideoConvViT(VideoTrunk):
    """`head(fc_norm(mean over the tokens of all time slots))`, with the parameter names of the image classifier.

    Args:
        img_size, num_frames, tubelet_size, conv_frames, in_chans: as in
            :class:`~pretrain.models.video.trunk.VideoTrunk`. Other sizes and numbers of frames can be passed to
            `forward`: positions are then resized on the fly.
        patch_size: downsampling of each stage; the product is the total stride.
        num_classes: of the head; 0 for none.
        embed_dim, depth, mlp_ratio: of each of the three stages.
        num_heads: attention heads of stage 3.
        drop_rate: dropout of what enters the head.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over all blocks.
        positions: "learned", or "fixed" for the sine-cosine table of pretraining.
        act_checkpoint: recompute the blocks' activations in the backward pass: one bool, or one for each stage.

    Raises:
        UserError: a size does not divide, or `positions` is neither of the two.
    """

    head: nn.Module
    global_pool = "avg"
    num_prefix_tokens = 0

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        num_frames: int = 16,
        tubelet_size: int = 2,
        conv_frames: int = 1,
        patch_size: Sequence[int] = (4, 2, 2),
        in_chans: int = 3,
        num_classes: int = 400,
        embed_dim: Sequence[int] = (256, 384, 768),
        depth: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        mlp_ratio: float | Sequence[float] = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        positions: str = "learned",
        act_checkpoint: bool | Sequence[bool] = False,
    ):
        super().__init__(
            img_size,
            num_frames,
            tubelet_size,
            conv_frames,
            in_chans,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            act_checkpoint=act_checkpoint,
        )
        if positions not in POSITIONS:
            raise UserError(f"positions must be one of {', '.join(POSITIONS)}, got {positions!r}.")
        self.num_classes, self.num_features = num_classes, self.embed_dim[-1]
        table = sincos_clip_pos_embed(self.num_features, self.clip_grid)
        self.pos_embed = nn.Parameter(table, requires_grad=positions == "learned")
        self.fc_norm = nn.LayerNorm(self.num_features, eps=1e-6)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self._init_weights()

    def _init_weights(self) -> None:
        if self.pos_embed.requires_grad:
            trunc_normal_(self.pos_embed, std=0.02)
        self.apply(init_linear)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """
        Args:
            clips: `(B, in_chans, F, H, W)`, normalised; F divisible by `tubelet_size`, H and W by the total stride.

        Returns:
            logits `(B, num_classes)`.

        Raises:
            UserError: F, H or W does not divide, or the channels are others.
        """
        return self.forward_head(self.forward_features(clips))

    def forward_features(self, clips: torch.Tensor) -> torch.Tensor:
        """Tokens `(B, T * h * w, embed_dim[2])` of the last block, slots first."""
        x = self.forward_conv_stages(clips)[2]
        _, slots, rows, columns, _ = x.shape
        pos_embed = resize_clip_pos_embed(self.pos_embed, self.clip_grid, (slots, rows, columns))
        return self.forward_blocks(2, x.flatten(1, 3) + pos_embed)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Pools tokens `(B, N, C)`, applies `fc_norm` and, unless `pre_logits`, the head."""
        x = self.fc_norm(x.mean(dim=1))
        return x if pre_logits else self.head(self.head_drop(x))

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict:
        """Layers for layer-wise learning rates, as those of the image classifier."""
        return dict(stem=r"^pos_embed|^patch_embed\d|^blocks[12]", blocks=r"^blocks3" if coarse else r"^blocks3\.(\d+)")
