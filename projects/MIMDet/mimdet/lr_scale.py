"""MIMDet's learning rates: slower for what was pretrained, faster for what was not."""

__all__ = ["get_mimdet_lr_scale"]


def get_mimdet_lr_scale(name: str, ratio: float) -> float:
    """The learning-rate factor of one parameter, as published.

    Args:
        name: parameter name, beginning with `backbone.` for those of the backbone.
        ratio: 2 for ViT-B, 3.5 for ViT-L.

    Returns:
        1 for the convolutional stem, `1 / ratio` for the rest of the encoder, `ratio` for everything else.
    """
    if not name.startswith("backbone.bottom_up.encoder."):
        return ratio
    return 1.0 if ".patch_embed." in name else 1.0 / ratio
