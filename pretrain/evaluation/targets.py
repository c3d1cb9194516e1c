"""What `norm_pix_loss` asks of a model on the images at hand."""

import logging

import torch
from torch.utils.data import Dataset

from pretrain.data.datasets import ImageDataset
from pretrain.data.pixels import images_on
from pretrain.models.autoencoder import MaskedAutoencoderConvViT

__all__ = ["channel_share", "warn_of_flat_targets"]

logger = logging.getLogger(__name__)

LOOKED_AT = 32  # images
LARGEST_SHARE = 0.8


def channel_share(patches: torch.Tensor, in_chans: int) -> float:
    """The share of patches' variance that lies between the means of their channels, the mean over patches.

    Under `norm_pix_loss` a patch has variance 1 over pixels and channels together. In a patch of one colour, and in any
    dark or grey one, most of it is the offset between the channels, which ImageNet's mean and standard deviation alone
    put there: a constant to predict. Edges and textures are in the rest.

    Args:
        patches: `(B, L, P * P * in_chans)`, pixels in the order (row, column, channel).
    """
    pixels = patches.unflatten(2, (-1, in_chans))
    total = pixels.var((2, 3), correction=0)
    between = pixels.mean(2).var(2, correction=0)
    return (between / total.clamp(min=1e-6)).mean().item()


def warn_of_flat_targets(model: MaskedAutoencoderConvViT, images: Dataset) -> None:
    """Warns where normalised targets are mostly constants, as on microscopy: pixels as they are teach more there.

    Args:
        images: augmented as for evaluation; the first of them are looked at.
    """
    assert isinstance(images, ImageDataset)
    looked_at = [images[0, i].image for i in range(min(LOOKED_AT, len(images)))]
    imgs = images_on(torch.stack(looked_at), torch.device("cpu"))
    share = channel_share(model.patchify(imgs), model.in_chans)
    if share > LARGEST_SHARE:
        logger.warning(
            "norm_pix_loss: %.0f %% of what there is to predict in these images is the offset between their colour "
            "channels. On such images (dark, grey, microscopy) try --no-norm_pix_loss.",
            100 * share,
        )
