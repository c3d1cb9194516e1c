"""The layers every ConvViT is made of: ConvMAE (Gao et al., 2022, arXiv:2205.03892) on top of ViT (arXiv:2010.11929).

Tokens are channels-last throughout: `(B, H, W, C)` on a grid, `(B, N, C)` or `(..., C)` in a list. Parameter names and
shapes are those of the published files, so 1×1 convolutions keep 4-D weights although they run as linear layers.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.recompute import norm_linear, norm_mlp

__all__ = [
    "Attention",
    "Block",
    "ConvBlock",
    "DepthwiseConv",
    "Mlp",
    "PatchEmbed",
    "PointwiseConv",
    "drop_path_rates",
    "init_linear",
    "patch_weight",
]


def patch_weight(weight: torch.Tensor) -> torch.Tensor:
    """A kernel `(O, C, p, q)` as the linear weight `(O, p * q * C)` for patches laid out (row, column, channel)."""
    # The weight is reordered, not the tokens: neighbouring channels stay together and there is less to move.
    return rearrange(weight, "o c p q -> o (p q c)")


class PatchEmbed(nn.Module):
    """Non-overlapping patches, LayerNorm (eps 1e-5) over channels, GELU.

    `(B, H, W, C_in)` to `(B, H / patch_size, W / patch_size, embed_dim)`.
    """

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=self.patch_size, q=self.patch_size))

    def embed(self, patches: torch.Tensor) -> torch.Tensor:
        """Embeds patches whose pixels or tokens are laid out (row, column, channel) in the last dimension."""
        return self.act(self.norm(F.linear(patches, patch_weight(self.proj.weight), self.proj.bias)))


class PointwiseConv(nn.Conv2d):
    """1×1 convolution over channels-last tokens `(..., C_in)`: a linear layer with a 4-D weight."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class DepthwiseConv(nn.Conv2d):
    """Depthwise convolution with "same" padding over a channels-last grid `(B, H, W, C)`."""

    def __init__(self, dim: int, kernel_size: int = 5):
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # (B, H, W, C) -> (B, C, H, W) and back are views: the convolution runs in the channels-last memory format.
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Mlp(nn.Module):
    """`fc2(gelu(fc1(norm(x))))`: the pre-norm is an argument, so that its output need not be kept."""

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 4.0,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        linear_layer: Callable[[int, int], nn.Linear | nn.Conv2d] = nn.Linear,
    ):
        super().__init__()
        hidden_dim = int(dim * mlp_ratio)
        self.fc1 = linear_layer(dim, hidden_dim)
        self.act = act_layer()
        self.fc2 = linear_layer(hidden_dim, dim)

    def forward(self, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        return norm_mlp(x, norm, self.fc1, self.act, self.fc2)


class ConvBlock(nn.Module):
    """The block of stages 1 and 2: a depthwise 5×5 convolution takes the place of attention.

    Args:
        norm_layer: LayerNorm over channels; its eps is 1e-5 in pretraining and classification, 1e-6 in detection.
        conv_layer: makes the depthwise convolution; called with the number of channels.
    """

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        conv_layer: Callable[[int], nn.Module] = DepthwiseConv,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.conv1 = PointwiseConv(dim, dim)
        self.attn = conv_layer(dim)
        self.conv2 = PointwiseConv(dim, dim)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, mlp_ratio, act_layer, linear_layer=PointwiseConv)

    def forward(
        self,
        x: torch.Tensor,
        apply_conv: Callable[[Any, torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """
        Args:
            x: a grid of tokens `(B, H, W, C)`, or any other arrangement `(B, ..., C)` that `apply_conv` understands.
            apply_conv: called as `apply_conv(depthwise, tokens)` in place of `depthwise(tokens)`; masked pretraining
                passes the one that lays visible tokens out on the grid and fetches them back.
        """
        y = norm_linear(x, self.norm1, self.conv1)
        y = self.attn(y) if apply_conv is None else apply_conv(self.attn, y)
        x = x + self.drop_path(self.conv2(y))
        return x + self.drop_path(self.mlp(x, self.norm2))


class Attention(nn.Module):
    """Multi-head self-attention over `(B, N, C)`; the pre-norm is an argument, as in :class:`Mlp`."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True):
        super().__init__()
        if dim % num_heads:
            raise UserError(f"embed_dim {dim} is not divisible by num_heads {num_heads}.")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        qkv = norm_linear(x, norm, self.qkv)
        q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=self.num_heads)
        out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(rearrange(out, "b heads n d -> b n (heads d)"))


class Block(nn.Module):
    """Pre-norm transformer block around any attention module that is called as `attn(x, norm)`."""

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, mlp_ratio, act_layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.attn(x, self.norm1))
        return x + self.drop_path(self.mlp(x, self.norm2))


def drop_path_rates(drop_path_rate: float, depth: tuple[int, int, int]) -> list[list[float]]:
    """Stochastic depth growing linearly from 0 to `drop_path_rate` over the blocks of all stages, one list a stage."""
    rates = iter(torch.linspace(0, drop_path_rate, sum(depth), device="cpu").tolist())
    return [[next(rates) for _ in range(n)] for n in depth]


def init_linear(module: nn.Module) -> None:
    """Linear layers as detectors and classifiers of clips begin with them: truncated normal of std 0.02, zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
