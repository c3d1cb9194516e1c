"""MIMDet's backbone: a MAE-pretrained ViT that sees a random part of the image, behind a convolutional stem.

Fang et al., "Unleashing Vanilla Vision Transformer with Masked Image Modeling for Object Detection" (arXiv:2204.02964).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from types import MappingProxyType

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from detectron2.structures import ImageList
from einops import rearrange
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.layers import Attention, Block
from pretrain.models.masking import PatchMask, keep_first, take_patches
from pretrain.models.pos_embed import resize_pos_embed, sincos_pos_embed
from pretrain.models.trunk import run_blocks

__all__ = ["MIMDetBackbone"]

STRIDE = 16
PADDING_NOISE = 100.0
EVALUATION_SEED = 0


class ConvStem(nn.Module):
    """Four 3×3 convolutions of stride 2, of `embed_dim` / 8, / 4, / 2 and / 1 channels; the last is followed by a 1×1.

    `(B, in_chans, H, W)` to the maps at strides 4, 8 and 16.
    """

    def __init__(self, in_chans: int, embed_dim: int):
        super().__init__()
        widths = [in_chans, *(embed_dim // divisor for divisor in (8, 4, 2, 1))]
        stages = [
            [
                nn.Conv2d(before, width, kernel_size=3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, width, eps=1e-6),
                nn.GELU(),
            ]
            for before, width in pairwise(widths)
        ]
        stages[-1].append(nn.Conv2d(embed_dim, embed_dim, kernel_size=1))
        self.proj = nn.ModuleList(nn.Sequential(*stage) for stage in stages)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        stride2, stride4, stride8, stride16 = self.proj
        c2 = stride4(stride2(x))
        c3 = stride8(c2)
        return c2, c3, stride16(c3)


class Encoder(nn.Module):
    """The stem, and the pretrained ViT on sampled tokens."""

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        norm_layer: Callable[[int], nn.Module],
        drop_path_rate: float,
        grid_size: tuple[int, int],
    ):
        super().__init__()
        self.grid_size = grid_size
        self.patch_embed = ConvStem(in_chans, embed_dim)
        self.pos_embed = _frozen_positions(embed_dim, grid_size)
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dim, Attention(embed_dim, num_heads), mlp_ratio, rate, norm_layer) for rate in rates
        )
        self.norm = norm_layer(embed_dim)

    def forward(
        self, tokens: torch.Tensor, grid: tuple[int, int], ids_keep: torch.Tensor, act_checkpoint: bool
    ) -> torch.Tensor:
        """Tokens `(B, L, C)` of a grid to the encoded ones among them `(B, K, C)`."""
        positions = resize_pos_embed(self.pos_embed[:, 1:], self.grid_size, grid)
        x = take_patches(tokens + positions, ids_keep)
        return self.norm(run_blocks(self.blocks, x, act_checkpoint=act_checkpoint))


class Decoder(nn.Module):
    """MAE's decoder, with the stem's features instead of mask tokens."""

    def __init__(
        self,
        embed_dim: int,
        decoder_embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        norm_layer: Callable[[int], nn.Module],
        grid_size: tuple[int, int],
    ):
        super().__init__()
        self.grid_size = grid_size
        self.decoder_pos_embed = _frozen_positions(decoder_embed_dim, grid_size)
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.conv_feat_proj = nn.Linear(embed_dim, decoder_embed_dim)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_embed_dim, Attention(decoder_embed_dim, num_heads), mlp_ratio, norm_layer=norm_layer)
            for _ in range(depth)
        )
        self.decoder_norm = norm_layer(decoder_embed_dim)

    def forward(
        self,
        encoded: torch.Tensor,
        unsampled: torch.Tensor,
        grid: tuple[int, int],
        ids_restore: torch.Tensor,
        act_checkpoint: bool,
    ) -> torch.Tensor:
        """Encoded tokens `(B, K, C)` and the stem's at all other places `(B, L - K, C)` to `(B, L, C_decoder)`."""
        x = torch.cat([self.decoder_embed(encoded), self.conv_feat_proj(unsampled)], dim=1)
        positions = resize_pos_embed(self.decoder_pos_embed[:, 1:], self.grid_size, grid)
        x = take_patches(x, ids_restore) + positions
        return self.decoder_norm(run_blocks(self.decoder_blocks, x, act_checkpoint=act_checkpoint))


class MIMDetBackbone(Backbone):
    """MIMDet's hybrid backbone (arXiv:2204.02964) as the `bottom_up` of :class:`detectron2.modeling.FPN`.

    The transformer sees `sample_ratio` of the image's tokens, drawn at random, in training and in evaluation; the
    ratio may be another one in evaluation. Parameter names are those of the published detectors.

    As published, what an image's features are depends on the padding that its batch gives it, at a sample ratio of 1
    too: the stem normalises over the padded map, the padding takes part in attention (only below a ratio of 1 is it
    sampled last), and positions are resized to the padded grid. An image is the same alone and in a batch of its size.

    Args:
        img_size: side in pixels whose grid the position embeddings are stored for; a multiple of 16.
        in_chans: channels of the images.
        embed_dim, depth, num_heads: of the encoder.
        decoder_embed_dim, decoder_depth, decoder_num_heads: of the decoder.
        mlp_ratio: of both.
        sample_ratio: share of the tokens that the encoder sees, in (0, 1].
        drop_path_rate: stochastic depth of the encoder's last block; grows linearly from 0.
        norm_layer: norm of all transformer blocks, with eps 1e-5 as published.
        use_act_checkpoint: recompute the blocks' activations in the backward pass.
        out_features: names of the outputs at strides 4, 8, 16 and 32.

    Raises:
        UserError: `img_size` is not a multiple of 16, or `sample_ratio` is out of range.
    """

    export_settings: Mapping[str, float] = MappingProxyType({"sample_ratio": 1.0})
    """What exported files use: all tokens, so that nothing is drawn."""

    def __init__(
        self,
        img_size: int = 800,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 4,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        sample_ratio: float = 0.5,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = partial(nn.LayerNorm, eps=1e-5),
        use_act_checkpoint: bool = False,
        out_features: Sequence[str] = ("c2", "c3", "c4", "c5"),
    ):
        super().__init__()
        if img_size < STRIDE or img_size % STRIDE:
            raise UserError(f"img_size {img_size} is not a multiple of the stride {STRIDE}.")
        if not 0 < sample_ratio <= 1:
            raise UserError(f"sample_ratio must be above 0 and at most 1, got {sample_ratio}.")
        self.sample_ratio = sample_ratio
        self.act_checkpoint = use_act_checkpoint
        grid_size = (img_size // STRIDE, img_size // STRIDE)
        self.encoder = Encoder(in_chans, embed_dim, depth, num_heads, mlp_ratio, norm_layer, drop_path_rate, grid_size)
        self.decoder = Decoder(
            embed_dim, decoder_embed_dim, decoder_depth, decoder_num_heads, mlp_ratio, norm_layer, grid_size
        )
        channels = (embed_dim // 4, embed_dim // 2, decoder_embed_dim, decoder_embed_dim)
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(out_features, channels, strict=True))
        self._out_feature_strides = dict(zip(out_features, (4, 8, 16, 32), strict=True))
        self.apply(_init_weights)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes the blocks' activations in the backward pass, or keeps them; timm's name for it."""
        self.act_checkpoint = enable

    @property
    def size_divisibility(self) -> int:
        """What the sides of a padded image must be multiples of: the stride of the last output."""
        return 2 * STRIDE

    def forward(self, images: ImageList | torch.Tensor, noise: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """
        Args:
            images: padded images `(B, in_chans, H, W)`, H and W divisible by 32, with their true sizes; a tensor alone
                has no padding.
            noise: `(B, L)` for the `L = H * W / 256` tokens, rows first; those of least noise are sampled. By default
                uniform in training. In evaluation the same for all images of a size, so that results can be repeated.

        Returns:
            the maps at strides 4, 8, 16 and 32 by name, each `(B, C, H', W')`.

        Raises:
            UserError: H or W is not divisible by 32, or the sample ratio leaves no token.
        """
        if isinstance(images, torch.Tensor):
            images = ImageList(images, [tuple(images.shape[-2:])] * images.shape[0])
        H, W = images.tensor.shape[-2:]
        if H % self.size_divisibility or W % self.size_divisibility:
            raise UserError(f"Image size {H}x{W} is not divisible by {self.size_divisibility}; pad the image.")
        grid = (H // STRIDE, W // STRIDE)
        act_checkpoint = self.training and self.act_checkpoint

        c2, c3, c4 = self.encoder.patch_embed(images.tensor)
        tokens = rearrange(c4, "b c h w -> b (h w) c")
        patches = self._sample(images, grid, noise)
        encoded = self.encoder(tokens, grid, patches.ids_keep, act_checkpoint)
        unsampled = take_patches(tokens, patches.ids_masked)
        c4 = self.decoder(encoded, unsampled, grid, patches.ids_restore, act_checkpoint)
        c4 = rearrange(c4, "b (h w) c -> b c h w", h=grid[0])
        return dict(zip(self._out_features, (c2, c3, c4, F.max_pool2d(c4, kernel_size=2)), strict=True))

    def _sample(self, images: ImageList, grid: tuple[int, int], noise: torch.Tensor | None) -> PatchMask:
        """Draws the tokens to encode, those in the padding last."""
        B, device = images.tensor.shape[0], images.tensor.device
        L = grid[0] * grid[1]
        K = int(L * self.sample_ratio)
        if K < 1:
            raise UserError(f"sample_ratio {self.sample_ratio} leaves none of {L} tokens; raise it.")
        if noise is None:
            noise = torch.rand(B, L, device=device) if self.training else _evaluation_noise(L).to(device).expand(B, L)
        rows, columns = torch.arange(grid[0], device=device), torch.arange(grid[1], device=device)
        inside = torch.stack(
            [
                # Rounded up as an export can write it: whole numbers, and ONNX rounds quotients towards zero.
                (
                    (rows < (height + STRIDE - 1) // STRIDE)[:, None] & (columns < (width + STRIDE - 1) // STRIDE)
                ).flatten()
                for height, width in images.image_sizes
            ]
        )
        noise = noise.masked_fill(~inside, PADDING_NOISE)
        return keep_first(noise.argsort(dim=1, stable=True), K)


@cache
def _evaluation_noise(length: int) -> torch.Tensor:
    return torch.rand(1, length, generator=torch.Generator().manual_seed(EVALUATION_SEED))


def _frozen_positions(embed_dim: int, grid_size: tuple[int, int]) -> nn.Parameter:
    """MAE's table `(1, 1 + L, embed_dim)`; the class token's slot, which is zero, is there as in MAE's files."""
    positions = F.pad(sincos_pos_embed(embed_dim, grid_size), (0, 0, 1, 0))
    return nn.Parameter(positions, requires_grad=False)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
