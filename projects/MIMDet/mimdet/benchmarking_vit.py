"""The plain ViT of Li et al., Benchmarking Detection Transfer Learning with Vision Transformers (arXiv:2111.11429)."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from detectron2.modeling import Backbone
from einops import rearrange
from torch import nn

from convmae_det.attention.table import RelPosBiasTable, TableAttention
from pretrain.common.errors import UserError
from pretrain.models.layers import Block, init_linear
from pretrain.models.pos_embed import resize_pos_embed, sincos_pos_embed
from pretrain.models.trunk import run_blocks

__all__ = ["BenchmarkingViT"]

GROUPS = 4


class _PatchEmbed(nn.Module):
    """`(B, in_chans, H, W)` to `(B, H / patch_size, W / patch_size, embed_dim)`, without a norm."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rearrange(self.proj(x), "b c h w -> b h w c")


class BenchmarkingViT(Backbone):
    """A plain ViT (arXiv:2111.11429) as the `bottom_up` of :class:`detectron2.modeling.FPN`.

    The blocks form four groups; in each the last attends globally and the others in windows. The groups' outputs
    become the strides 4, 8, 16 and 32 through `ms_adaptor`. All windowed blocks share one table of relative position
    biases, all global ones another. Parameter names are those of the published detectors.

    Position embeddings are trained, beginning with sines and cosines (row coordinate first, unlike MAE's). They, and
    the tables, are resized for images of another size than `img_size`. Padding takes part like any other place of the
    image: what an image's features are depends on how it is padded, not on the other images of the batch.

    Args:
        img_size: side in pixels of the training images; sets the size of the position embedding and the global table.
        patch_size: side of a patch in pixels.
        in_chans: channels of the images.
        embed_dim, depth, num_heads, mlp_ratio: of the transformer; `depth` is a multiple of 4.
        qkv_bias: bias in the query, key and value projections.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0.
        norm_layer: norm of the transformer blocks.
        window_size: side of the attention windows in tokens.
        use_act_checkpoint: recompute the blocks' activations in the backward pass.
        out_features: names of the outputs at strides 4, 8, 16 and 32 with the default `patch_size`.

    Raises:
        UserError: `img_size` is not a multiple of `patch_size`, or `depth` not one of 4.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = partial(nn.LayerNorm, eps=1e-6),
        window_size: int = 16,
        use_act_checkpoint: bool = False,
        out_features: Sequence[str] = ("s0", "s1", "s2", "s3"),
    ):
        super().__init__()
        if depth % GROUPS:
            raise UserError(f"depth {depth} cannot be cut into {GROUPS} groups of blocks.")
        if img_size < patch_size or img_size % patch_size:
            raise UserError(f"img_size {img_size} is not a multiple of patch_size {patch_size}.")
        self.patch_size, self.group_depth = patch_size, depth // GROUPS
        self.act_checkpoint = use_act_checkpoint
        side = img_size // patch_size
        self.grid_size = (side, side)
        self.patch_embed = _PatchEmbed(patch_size, in_chans, embed_dim)
        # (h w) -> (w h): of a square grid, rows and columns change places.
        positions = rearrange(sincos_pos_embed(embed_dim, self.grid_size), "1 (h w) c -> 1 (w h) c", h=side)
        self.pos_embed = nn.Parameter(positions.contiguous())

        windowed_bias, global_bias = RelPosBiasTable(window_size, num_heads), RelPosBiasTable(side, num_heads)
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(rates):
            if (i + 1) % self.group_depth == 0:
                attention = TableAttention(embed_dim, num_heads, global_bias, qkv_bias)
            else:
                attention = TableAttention(embed_dim, num_heads, windowed_bias, qkv_bias, window_size)
            self.blocks.append(Block(embed_dim, attention, mlp_ratio, rate, norm_layer))
        self.ms_adaptor = nn.ModuleList(
            [
                nn.Sequential(_upsample(embed_dim), nn.GroupNorm(32, embed_dim), nn.GELU(), _upsample(embed_dim)),
                _upsample(embed_dim),
                nn.Identity(),
                nn.MaxPool2d(kernel_size=2),
            ]
        )
        self.windowed_rel_pos_bias, self.global_rel_pos_bias = windowed_bias, global_bias
        strides = (patch_size // 4, patch_size // 2, patch_size, patch_size * 2)
        self._out_features = list(out_features)
        self._out_feature_channels = dict.fromkeys(out_features, embed_dim)
        self._out_feature_strides = dict(zip(out_features, strides, strict=True))
        self.apply(init_linear)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes the blocks' activations in the backward pass, or keeps them; timm's name for it."""
        self.act_checkpoint = enable

    @property
    def size_divisibility(self) -> int:
        """What the sides of an image must be multiples of: the stride of the last output."""
        return 2 * self.patch_size

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            x: images `(B, in_chans, H, W)`, H and W divisible by twice the patch size.

        Returns:
            the four maps by name, each `(B, embed_dim, H', W')`.

        Raises:
            UserError: H or W is not divisible by twice the patch size.
        """
        H, W = x.shape[-2:]
        if H % self.size_divisibility or W % self.size_divisibility:
            raise UserError(f"Image size {H}x{W} is not divisible by {self.size_divisibility}; pad the image.")
        grid = (H // self.patch_size, W // self.patch_size)
        x = self.patch_embed(x) + resize_pos_embed(self.pos_embed, self.grid_size, grid).unflatten(1, grid)
        outputs = {}
        for i, (name, adaptor) in enumerate(zip(self._out_features, self.ms_adaptor, strict=True)):
            group = self.blocks[i * self.group_depth : (i + 1) * self.group_depth]
            x = run_blocks(group, x, act_checkpoint=self.training and self.act_checkpoint)
            outputs[name] = adaptor(rearrange(x, "b h w c -> b c h w"))
        return outputs


def _upsample(dim: int) -> nn.Module:
    return nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
