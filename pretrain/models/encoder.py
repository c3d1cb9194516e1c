"""ConvMAE's encoder: visible patches through all three stages, whose outputs are joined at the end.

It computes visible tokens only, in all three stages. That is exact: apart from the depthwise convolution, whose input
is masked (:mod:`pretrain.models.masked_conv`), everything in stages 1 and 2 works on one token or on the tokens of one
patch. FastConvMAE's four complementary masks simply are four views of each image.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.joints import StageJoints
from pretrain.models.masked_conv import VisibleConv
from pretrain.models.masking import PatchMask, complementary_mask, random_mask, take_patches
from pretrain.models.pos_embed import sincos_pos_embed
from pretrain.models.trunk import ConvViTTrunk

__all__ = ["DEFAULT_MASK_RATIO", "MASKINGS", "ConvMAEEncoder"]

MASKINGS = {"random": random_mask, "complementary": complementary_mask}
DEFAULT_MASK_RATIO = 0.75


class ConvMAEEncoder(StageJoints, ConvViTTrunk):
    """The encoder of ConvMAE, and with `masking="complementary"` of FastConvMAE.

    Shapes below: B images, L patches at the total stride, K of them visible, M masked views: `M = B`, or `4 B`,
    group-major, with complementary masking; and P prefix tokens of stage 3, of which ConvMAE has none.

    Args:
        img_size: height and width in pixels, or one number for both; divisible by the total stride.
        in_chans: channels of the images.
        masking: "random", or "complementary": four masks that together show every patch exactly once.
        sizes: of the trunk, :class:`pretrain.models.trunk.ConvViTTrunk`.

    Attributes:
        num_prefix_tokens: tokens P of stage 3 and the decoder that stand before the patches.
        grid_size: rows and columns of patches.

    Raises:
        UserError: a size does not divide, or `masking` is neither of the two.
    """

    num_prefix_tokens: ClassVar[int] = 0

    def __init__(self, *, img_size: int | Sequence[int], in_chans: int, masking: str, **sizes: Any):
        super().__init__(in_chans=in_chans, **sizes)
        if masking not in MASKINGS:
            raise UserError(f"masking must be one of {', '.join(MASKINGS)}, got {masking!r}.")
        self.masking, self.in_chans = masking, in_chans
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.check_image_size(*self.img_size)
        self.grid_size = (self.img_size[0] // self.stride, self.img_size[1] // self.stride)
        self.make_joints()
        self.pos_embed = self.fixed_positions(self.embed_dim[2])
        self.norm = nn.LayerNorm(self.embed_dim[2], eps=1e-6)

    def fixed_positions(self, dim: int) -> nn.Parameter:
        """The sine-cosine table of the patches, zeros for prefix tokens; never trained."""
        return nn.Parameter(sincos_pos_embed(dim, self.grid_size, self.num_prefix_tokens), requires_grad=False)

    def forward_encoder(
        self, imgs: torch.Tensor, mask_ratio: float = DEFAULT_MASK_RATIO, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            imgs: `(B, in_chans, H, W)`, normalised, of size `img_size`.
            mask_ratio: share of the patches that is masked; 0.75 with complementary masking.
            noise: `(B, L)`, fixes the masks: patches of small noise are kept. Uniform by default.

        Returns:
            latent: visible patches in the order of their noise, after the P prefix tokens: `(M, P + K, embed_dim[2])`.
            mask: `(M, L)`, 0 where visible and 1 where masked.
            ids_restore: `(M, L)`, brings visible patches followed by masked ones back into image order.

        Raises:
            UserError: images of another size or channel count, or a mask ratio out of range.
        """
        patches, patch_mask = self.start(imgs, mask_ratio, noise)
        return self.encode(patches, patch_mask.ids_keep), patch_mask.mask, patch_mask.ids_restore

    def patchify(self, imgs: torch.Tensor) -> torch.Tensor:
        """Images `(B, in_chans, H, W)` to patches `(B, L, stride * stride * in_chans)`."""
        return rearrange(imgs, "b c (h p) (w q) -> b (h w) (p q c)", p=self.stride, q=self.stride)

    def unpatchify(self, patches: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`patchify`."""
        return rearrange(
            patches, "b (h w) (p q c) -> b c (h p) (w q)", h=self.grid_size[0], p=self.stride, q=self.stride
        )

    def start(
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

    def forward_features(self, imgs: torch.Tensor) -> torch.Tensor:
        """What :meth:`forward_encoder` gives if nothing is masked, computed densely.

        Args:
            imgs: `(B, in_chans, H, W)`, normalised, of size `img_size`.

        Returns:
            all patches in image order, after the prefix tokens: `(B, P + L, embed_dim[2])`.
        """
        stage1, stage2, x = self.forward_conv_stages(imgs)
        _, p2, p3 = self.patch_size
        # (B, h, w, C) -> (B, L, tokens of a patch * C), as encode has them
        stage1 = rearrange(stage1, "b (h r3 r2) (w c3 c2) c -> b (h w) (r3 c3) (r2 c2 c)", r2=p2, c2=p2, r3=p3, c3=p3)
        stage2 = rearrange(stage2, "b (h r3) (w c3) c -> b (h w) (r3 c3) c", r3=p3, c3=p3)
        x = x.flatten(1, 2) + self.pos_embed[:, self.num_prefix_tokens :]
        return self.norm(self.join_stages(self.forward_blocks(2, self.add_prefix(x)), stage1, stage2))

    def encode(self, patches: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        """Patches `(B, L, ...)` to latent `(M, P + K, embed_dim[2])`."""
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
        x = x + self.pos_embed[0, self.num_prefix_tokens :][ids_keep]
        return self.norm(self.join_stages(self.forward_blocks(2, self.add_prefix(x)), stage1, stage2))

    def add_prefix(self, x: torch.Tensor) -> torch.Tensor:
        """Patches `(M, N, embed_dim[2])` that enter the blocks of stage 3, with the prefix tokens before them."""
        return x

    def _conv_stage(self, stage: int, x: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        """Convolution blocks of stage 0 or 1 on tokens `(M, K, side * side, C)`."""
        return self.forward_blocks(stage, x, VisibleConv(ids_keep, self.grid_size, side=math.isqrt(x.shape[2])))
