"""VideoConvMAE: a masked autoencoder on clips with tube masks, computed on visible tubes alone.

The paper of ConvMAE (arXiv:2205.03892) reports VideoConvMAE, and that a multi-scale decoder helps; code and
hyper-parameters were never published. Masks, decoder and targets here follow VideoMAE (arXiv:2203.12602), the rest is
the image model's. As there, the sparse encoder is exact: only depthwise convolutions cross the borders of a tube.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models.decoder import PixelDecoder
from pretrain.models.joints import StageJoints
from pretrain.models.masking import PatchMask, take_patches
from pretrain.models.video.masking import VisibleTubeConv, tube_mask
from pretrain.models.video.positions import sincos_clip_pos_embed
from pretrain.models.video.trunk import VideoTrunk
from pretrain.names import per_stage

__all__ = ["VideoConvMAE", "normalise_cubes"]

DEFAULT_MASK_RATIO = 0.9


class VideoConvMAE(PixelDecoder, StageJoints, VideoTrunk):
    """The autoencoder, under the image model's parameter names; `patch_embed1.proj.weight` is 5-D.

    Shapes below: B clips of T time slots, each with L patches at the total stride, of which K are visible. A cube is a
    patch over the `tubelet_size` frames of a slot.

    Args:
        img_size, num_frames, tubelet_size, conv_frames, in_chans: as in
            :class:`~pretrain.models.video.trunk.VideoTrunk`.
        patch_size: downsampling of each stage; the product is the total stride, which is the size of a masked patch.
        embed_dim, depth, mlp_ratio: of each of the three stages.
        num_heads: attention heads of stage 3.
        decoder_embed_dim, decoder_depth, decoder_num_heads: of the transformer decoder.
        multi_scale: add the outputs of stages 1 and 2 to what the decoder sees (the paper's multi-scale decoder).
        norm_pix_loss: predict pixels standardised in each cube and channel, as VideoMAE does.
        act_checkpoint: recompute the blocks' activations in the backward pass: one bool, or one for each stage; the
            decoder follows the last.
        fp32_decoder: keep the decoder out of autocast.

    Raises:
        UserError: a size does not divide.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        num_frames: int = 16,
        tubelet_size: int = 2,
        conv_frames: int = 1,
        patch_size: Sequence[int] = (4, 2, 2),
        in_chans: int = 3,
        embed_dim: Sequence[int] = (256, 384, 768),
        depth: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        decoder_embed_dim: int = 384,
        decoder_depth: int = 4,
        decoder_num_heads: int = 6,
        mlp_ratio: float | Sequence[float] = 4.0,
        multi_scale: bool = True,
        norm_pix_loss: bool = True,
        act_checkpoint: bool | Sequence[bool] = False,
        fp32_decoder: bool = False,
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
            act_checkpoint=act_checkpoint,
        )
        self.norm_pix_loss, self.fp32_decoder, self.multi_scale = norm_pix_loss, fp32_decoder, multi_scale
        if multi_scale:
            self.make_joints()
        self.pos_embed = self._fixed_positions(self.embed_dim[2])
        self.norm = nn.LayerNorm(self.embed_dim[2], eps=1e-6)
        self.add_decoder(
            decoder_embed_dim,
            decoder_depth,
            decoder_num_heads,
            per_stage("mlp_ratio", mlp_ratio)[0],
            positions=self._fixed_positions(decoder_embed_dim),
            values=tubelet_size * self.stride**2 * in_chans,
        )
        self.init_pretraining_weights()

    def _fixed_positions(self, dim: int) -> nn.Parameter:
        return nn.Parameter(sincos_clip_pos_embed(dim, self.clip_grid), requires_grad=False)

    def forward(
        self, clips: torch.Tensor, mask_ratio: float = DEFAULT_MASK_RATIO, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            clips: `(B, in_chans, F, H, W)`, normalised, of `num_frames` frames of size `img_size`.
            mask_ratio: share of the patches that is masked in every slot.
            noise: `(B, L)`, fixes the tubes: patches of small noise are kept. Uniform by default.

        Returns:
            loss: mean squared error over the values of masked cubes, a scalar.
            pred: all cubes `(B, T * L, tubelet_size * stride * stride * in_chans)`, pixels in the order (frame, row,
                column, channel); standardised per cube and channel if `norm_pix_loss`.
            mask: `(B, T * L)`, 0 where visible and 1 where masked.

        Raises:
            UserError: clips of another size, frame or channel count, a mask ratio out of range, or one that masks
                nothing.
        """
        cubes, tubes = self._start(clips, mask_ratio, noise)
        latent = self._encode(cubes, tubes.ids_keep)
        with self.decoder_precision(clips.device.type):
            pred = self.predict_pixels(self._decode(latent, tubes.ids_restore))
        loss = self._loss(cubes, take_patches(self._slots_first(pred), self._in_all_slots(tubes.ids_masked)), tubes)
        return loss, pred, tubes.mask.repeat(1, self.slots)

    def forward_loss(
        self, clips: torch.Tensor, mask_ratio: float = DEFAULT_MASK_RATIO, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of :meth:`forward` without the predictions it does not need; what a training step runs."""
        cubes, tubes = self._start(clips, mask_ratio, noise)
        latent = self._encode(cubes, tubes.ids_keep)
        with self.decoder_precision(clips.device.type):
            tokens = self._slots_first(self._decode(latent, tubes.ids_restore))
            pred = self.predict_pixels(take_patches(tokens, self._in_all_slots(tubes.ids_masked)))
        return self._loss(cubes, pred, tubes)

    def forward_encoder(
        self, clips: torch.Tensor, mask_ratio: float = DEFAULT_MASK_RATIO, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The encoder alone; arguments and errors as in :meth:`forward`.

        Returns:
            latent: visible cubes `(B, T * K, embed_dim[2])`, slots first, then in the order of their noise.
            mask: `(B, T * L)`, 0 where visible and 1 where masked.
            ids_restore: `(B, L)`, brings the visible patches of a slot followed by its masked ones into image order.
        """
        cubes, tubes = self._start(clips, mask_ratio, noise)
        return self._encode(cubes, tubes.ids_keep), tubes.mask.repeat(1, self.slots), tubes.ids_restore

    def patchify(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips `(B, in_chans, F, H, W)` to cubes `(B, T * L, tubelet_size * stride * stride * in_chans)`."""
        p, f = self.stride, self.tubelet_size
        return rearrange(clips, "b c (t f) (h p) (w q) -> b (t h w) (f p q c)", p=p, q=p, f=f)

    def unpatchify(self, cubes: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`patchify`."""
        (t, h, _), p, f = self.clip_grid, self.stride, self.tubelet_size
        return rearrange(cubes, "b (t h w) (f p q c) -> b c (t f) (h p) (w q)", t=t, h=h, p=p, q=p, f=f)

    def _start(
        self, clips: torch.Tensor, mask_ratio: float, noise: torch.Tensor | None
    ) -> tuple[torch.Tensor, PatchMask]:
        """Checks the input, cuts clips into cubes `(T * B, L, ...)`, slots first, and draws the tubes."""
        if tuple(clips.shape[1:]) != (self.in_chans, self.num_frames, *self.img_size):
            raise UserError(
                f"Clips of shape {tuple(clips.shape)} do not fit a model of {self.in_chans} channels, "
                f"{self.num_frames} frames and img_size {self.img_size}; build the model with others."
            )
        shape = (clips.shape[0], self.grid_size[0] * self.grid_size[1])
        if noise is None:
            noise = torch.rand(shape, device=clips.device)
        elif noise.shape != shape:
            raise UserError(f"noise must have shape {shape}, one value for each tube, got {tuple(noise.shape)}.")
        return self._slots_first(self.patchify(clips)), tube_mask(noise, mask_ratio)

    def _slots_first(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens of clips `(B, T * N, C)` to tokens of time slots `(T * B, N, C)`."""
        return rearrange(x, "b (t n) c -> (t b) n c", t=self.slots)

    def _clips_first(self, x: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`_slots_first`."""
        return rearrange(x, "(t b) n c -> b (t n) c", t=self.slots)

    def _in_all_slots(self, ids: torch.Tensor) -> torch.Tensor:
        """Indices `(B, N)` of patches to `(T * B, N)`."""
        return ids.repeat(self.slots, 1)

    def _encode(self, cubes: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        """Cubes `(T * B, L, ...)` to latent `(B, T * K, embed_dim[2])`."""
        p1, p2, p3 = self.patch_size
        # Within a patch, stage-1 tokens lie in rows of its p2 * p3 by p2 * p3 square.
        pixels = rearrange(
            take_patches(cubes, self._in_all_slots(ids_keep)),
            "m k (f r r1 col c1 c) -> m k (r col) (f r1 c1 c)",
            f=self.tubelet_size,
            r1=p1,
            c1=p1,
            r=p2 * p3,
            col=p2 * p3,
        )
        stage1 = self._conv_stage(0, self.patch_embed1.embed(pixels), ids_keep)
        # One copy serves the patch embedding of stage 2 and, flattened further, stage1_output_decode.
        stage1 = rearrange(stage1, "m k (r3 r2 c3 c2) c -> m k (r3 c3) (r2 c2 c)", r2=p2, c2=p2, r3=p3, c3=p3)
        stage2 = self._conv_stage(1, self.patch_embed2.embed(stage1), ids_keep)
        # (T * B, K, p3 * p3 * C2) -> (B, T * K, C3)
        x = self._clips_first(self.patch_embed4(self.patch_embed3.embed(stage2.flatten(2))))
        pos_embed = self.pos_embed.unflatten(1, (self.slots, -1))[0, :, ids_keep]  # (T, B, K, C3)
        x = self.forward_blocks(2, x + rearrange(pos_embed, "t b k c -> b (t k) c"))
        if self.multi_scale:
            x = self._clips_first(self.join_stages(self._slots_first(x), stage1, stage2))
        return self.norm(x)

    def _conv_stage(self, stage: int, x: torch.Tensor, ids_keep: torch.Tensor) -> torch.Tensor:
        """Convolution blocks of stage 0 or 1 on tokens `(T * B, K, side * side, C)`."""
        side = math.isqrt(x.shape[2])
        return self.forward_blocks(stage, x, VisibleTubeConv(ids_keep, self.grid_size, side, self.slots))

    def _decode(self, latent: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        """Latent `(B, T * K, embed_dim[2])` to decoder tokens `(B, T * L, decoder_embed_dim)`."""
        x = self._slots_first(self.decoder_embed(latent))
        mask_tokens = self.mask_token.to(x.dtype).expand(x.shape[0], ids_restore.shape[1] - x.shape[1], -1)
        x = take_patches(torch.cat([x, mask_tokens], dim=1), self._in_all_slots(ids_restore))
        x = self._clips_first(x) + self.decoder_pos_embed
        return self.run_decoder(self.decoder_blocks, x)

    def _loss(self, cubes: torch.Tensor, pred: torch.Tensor, tubes: PatchMask) -> torch.Tensor:
        """Mean squared error of predictions `(T * B, L - K, ...)` of the masked cubes."""
        target = take_patches(cubes, self._in_all_slots(tubes.ids_masked))
        target = target.to(torch.promote_types(target.dtype, torch.float32))
        if self.norm_pix_loss:
            mean, std = normalise_cubes(target, self.in_chans)
            target = ((target.unflatten(-1, (-1, self.in_chans)) - mean) / std).flatten(-2)
        return self.reconstruction_error(pred, target)


def normalise_cubes(cubes: torch.Tensor, in_chans: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation that VideoMAE standardises targets with, in each cube and channel.

    Args:
        cubes: `(..., pixels * in_chans)`, the channel last.

    Returns:
        both `(..., 1, in_chans)`; the deviation is the unbiased one plus 1e-6.
    """
    var, mean = torch.var_mean(cubes.unflatten(-1, (-1, in_chans)), dim=-2, keepdim=True)
    return mean, var.sqrt() + 1e-6
