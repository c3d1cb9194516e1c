"""Layer-wise learning-rate decay of the published segmentation models."""

from convmae_det.lr_decay import get_vit_lr_decay_rate

__all__ = ["get_segmentor_lr_decay_rate"]


def get_segmentor_lr_decay_rate(name: str, lr_decay_rate: float = 0.75, num_layers: int = 11) -> float:
    """The learning-rate factor of one parameter, as published.

    Patch embeddings, the convolution stages and, unlike in the detectors, `pos_embed` are layer 0, block `i` of stage 3
    is layer `i + 1`, everything else layer `num_layers + 1`.

    Args:
        name: parameter name, beginning with `backbone.` for those of the backbone.
        lr_decay_rate: factor from each layer to the one below.
        num_layers: number of blocks in stage 3.

    Returns:
        `lr_decay_rate ** (num_layers + 1 - layer)`.
    """
    if name == "backbone.pos_embed":
        return lr_decay_rate ** (num_layers + 1)
    return get_vit_lr_decay_rate(name, lr_decay_rate, num_layers)
