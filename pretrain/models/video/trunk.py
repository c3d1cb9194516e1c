"""The ConvViT trunk on clips: time slots of a few frames, each of which passes stages 1 and 2 like an image.

Published is only that VideoConvMAE-B has 86 M parameters. The choices are ours: the first patch embedding takes
`tubelet_size` frames (5-D weight under the image's name), later embeddings work on each slot, depthwise convolutions
are 1×5×5 or 3×5×5, and stage 3 attends over all tokens of all slots.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.layers import DepthwiseConv
from pretrain.models.trunk import ConvViTTrunk

__all__ = ["CubeEmbed", "FramewiseConv", "SpaceTimeConv", "VideoTrunk"]


class CubeEmbed(nn.Module):
    """Non-overlapping cubes of pixels, LayerNorm (eps 1e-5) over channels, GELU: the image's, with a 5-D weight.

    `(B, C_in, F, H, W)` to `(B, F / tubelet_size, H / patch_size, W / patch_size, embed_dim)`.
    """

    def __init__(self, tubelet_size: int, patch_size: int, in_chans: int, embed_dim: int):
        super().__init__()
        size = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=size, stride=size)
        self.norm = nn.LayerNorm(embed_dim)
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f, p, q = self.proj.kernel_size
        return self.embed(rearrange(x, "b c (t f) (h p) (w q) -> b t h w (f p q c)", f=f, p=p, q=q))

    def embed(self, cubes: torch.Tensor) -> torch.Tensor:
        """Embeds cubes whose pixels are laid out (frame, row, column, channel) in the last dimension."""
        weight = rearrange(self.proj.weight, "o c f p q -> o (f p q c)")
        return self.act(self.norm(F.linear(cubes, weight, self.proj.bias)))


class FramewiseConv(DepthwiseConv):
    """Depthwise 1×5×5 convolution over channels-last tokens `(B, T, H, W, C)`: the image's, slot by slot."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class SpaceTimeConv(nn.Conv3d):
    """Depthwise 3×5×5 convolution with "same" padding over channels-last tokens `(B, T, H, W, C)`.

    It is computed as three 2-D convolutions whose results are shifted in time and added: so the code that convolves
    visible tokens of an image serves here as well.
    """

    def __init__(self, dim: int, kernel_size: int = 5):
        pad = kernel_size // 2
        super().__init__(dim, dim, (3, kernel_size, kernel_size), padding=(1, pad, pad), groups=dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # (B, T, H, W, C) -> (B * T, C, H, W), a view in the channels-last memory format
        frames = x.flatten(0, 1).permute(0, 3, 1, 2)

        def convolve(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            out = F.conv2d(frames, weight, bias, padding=self.padding[1:], groups=self.groups)
            return out.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])

        return self.over_time(convolve, dim=1)

    def over_time(
        self, convolve: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor], dim: int
    ) -> torch.Tensor:
        """The sum over the kernel's three slices.

        Args:
            convolve: from a slice `(C, 1, 5, 5)` and a bias to the result for every time slot.
            dim: the result's dimension of time slots.
        """
        before, now, after = self.weight.unbind(2)
        out = convolve(now, self.bias)
        T = out.shape[dim]
        if T == 1:
            return out
        # Zeros beyond the first and the last slot
        shifted = out.narrow(dim, 1, T - 1) + convolve(before, None).narrow(dim, 0, T - 1)
        out = torch.cat([out.narrow(dim, 0, 1), shifted], dim)
        shifted = out.narrow(dim, 0, T - 1) + convolve(after, None).narrow(dim, 1, T - 1)
        return torch.cat([shifted, out.narrow(dim, T - 1, 1)], dim)


CONV_LAYERS: dict[int, Callable[[int], nn.Module]] = {1: FramewiseConv, 3: SpaceTimeConv}
"""Depthwise convolutions by how many time slots they span."""


class VideoTrunk(ConvViTTrunk):
    """:class:`~pretrain.models.trunk.ConvViTTrunk` on clips `(B, in_chans, F, H, W)`, with its parameter names.

    Args:
        img_size: height and width in pixels, or one number for both; divisible by the total stride.
        num_frames: frames F of a clip, divisible by `tubelet_size`.
        tubelet_size: frames of a time slot.
        conv_frames: time slots that the depthwise convolutions of stages 1 and 2 span: 1, or 3 for 3×5×5.
        in_chans: channels of the frames.
        options: further arguments of `ConvViTTrunk`.

    Attributes:
        img_size: height and width.
        grid_size: rows and columns of stage-3 patches.
        slots: time slots T of a clip.

    Raises:
        UserError: a size does not divide, or `conv_frames` is neither 1 nor 3.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        num_frames: int = 16,
        tubelet_size: int = 2,
        conv_frames: int = 1,
        in_chans: int = 3,
        **options: Any,
    ):
        if conv_frames not in CONV_LAYERS:
            raise UserError(f"conv_frames must be 1 (1x5x5 kernels) or 3 (3x5x5 kernels), got {conv_frames}.")
        super().__init__(in_chans=in_chans, conv_layer=CONV_LAYERS[conv_frames], **options)
        # Another class with the same methods
        self.patch_embed1 = CubeEmbed(  # type: ignore[assignment]
            tubelet_size, self.patch_size[0], in_chans, self.embed_dim[0]
        )
        self.in_chans, self.num_frames, self.tubelet_size = in_chans, num_frames, tubelet_size
        self.conv_frames = conv_frames
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.check_image_size(*self.img_size)
        self.check_frames(num_frames)
        self.grid_size = (self.img_size[0] // self.stride, self.img_size[1] // self.stride)
        self.slots = num_frames // tubelet_size

    @property
    def clip_grid(self) -> tuple[int, int, int]:
        """Time slots, rows and columns of the tokens of stage 3."""
        return (self.slots, *self.grid_size)

    def check_frames(self, num_frames: int) -> None:
        """Raises UserError unless a clip of so many frames is made of whole time slots."""
        if num_frames < 1 or num_frames % self.tubelet_size:
            raise UserError(
                f"A clip of {num_frames} frames is not made of time slots of {self.tubelet_size} frames "
                f"(tubelet_size); give a multiple of {self.tubelet_size}."
            )

    def forward_conv_stages(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Stages 1 and 2 and the embedding of stage 3, without a mask.

        Args:
            x: clips `(B, in_chans, F, H, W)`.

        Returns:
            the outputs of stages 1 and 2 and the tokens that enter stage 3 (before positions are added), each
            `(B, T, h, w, C)` at its own stride.

        Raises:
            UserError: F, H or W does not divide.
        """
        if x.ndim != 5 or x.shape[1] != self.in_chans:
            raise UserError(
                f"Clips of shape {tuple(x.shape)} do not fit a model of clips (B, {self.in_chans}, frames, height, "
                "width)."
            )
        self.check_frames(x.shape[2])
        self.check_image_size(*x.shape[-2:])
        stage1 = self.forward_blocks(0, self.patch_embed1(x))
        clips = stage1.shape[:2]
        stage2 = self.forward_blocks(1, self.patch_embed2(stage1.flatten(0, 1)).unflatten(0, clips))
        return stage1, stage2, self.patch_embed4(self.patch_embed3(stage2.flatten(0, 1)).unflatten(0, clips))
