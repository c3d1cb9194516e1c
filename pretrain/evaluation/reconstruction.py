"""How well a pretrained model reconstructs: its loss on held-out images, and pictures."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from PIL import Image
from torch import nn

from pretrain.common.distributed import World
from pretrain.data.datasets import MaskedSample
from pretrain.data.pixels import images_on, normalisation
from pretrain.data.video.datasets import MaskedClip
from pretrain.models.autoencoder import MaskedAutoencoderConvViT

__all__ = ["mean_losses", "reconstruction_picture"]

GAP = 4
"""Pixels between pictures."""


@torch.no_grad()
def mean_losses(
    loss: nn.Module,
    batches: Iterable[MaskedSample | MaskedClip],
    mask_ratio: float,
    world: World,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> dict[str, float]:
    """Mean losses over the images of all processes, each of which has as many.

    Args:
        loss: what is trained, its model in evaluation mode: gives the loss, or the loss and those it is made of.

    Returns:
        `val_loss`, and `val_loss_NAME` of each loss it is made of.
    """
    total, count, names = torch.zeros((), device=device), 0, getattr(loss, "names", ())
    for batch in batches:
        imgs, noise = images_on(batch.image, device), batch.noise.to(device)
        with autocast():
            values = loss(imgs, mask_ratio, noise)
            # (1 + names,)
            values = torch.cat([values[0][None], values[1]]) if isinstance(values, tuple) else values
            total = total + values * len(imgs)
        count += len(imgs)
    means = world.mean(total / count).reshape(-1).tolist()
    return dict(zip(["val_loss", *(f"val_loss_{name}" for name in names)], means, strict=True))


@torch.no_grad()
def reconstruction_picture(
    model: MaskedAutoencoderConvViT, imgs: torch.Tensor, mask_ratio: float, noise: torch.Tensor
) -> Image.Image:
    """One row for each image: original, masked, reconstruction, pasted.

    Under `norm_pix_loss` the model predicts patches normalised by their own mean and variance; both are taken from the
    original patch, as there is no other place to take them from. With complementary masks the first view is shown.

    Args:
        imgs: `(B, C, H, W)`, normalised, on the model's device.
        noise: `(B, L)`, fixes the masks.
    """
    was_training = model.training
    model.eval()
    _, pred, mask = model(imgs, mask_ratio, noise)
    model.train(was_training)
    B = imgs.shape[0]
    patches, pred, mask = model.patchify(imgs), pred[:B].float(), mask[:B, :, None]
    if model.norm_pix_loss:
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        pred = pred * (var + 1e-6).sqrt() + mean
    shown = [patches, patches.masked_fill(mask.bool(), 0), pred, torch.where(mask.bool(), pred, patches)]
    mean, std = (torch.tensor(v, device=imgs.device).view(-1, 1, 1) for v in normalisation(model.in_chans))
    columns = [(model.unpatchify(p) * std + mean).clamp(0, 1).cpu() for p in shown]
    return _grid(torch.stack(columns, dim=1))


def _grid(pictures: torch.Tensor) -> Image.Image:
    """Pictures `(rows, columns, C, H, W)` in [0, 1], side by side on white."""
    rows, columns, _, H, W = pictures.shape
    canvas = np.full((rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            # (C, H, W) -> (H, W, C)
            picture = (pictures[row, column] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            canvas[row * (H + GAP) :, column * (W + GAP) :][:H, :W] = picture
    return Image.fromarray(canvas)
