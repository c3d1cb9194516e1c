"""Layer-wise learning-rate decay for ConvViT detectors."""

from pretrain.common.errors import UserError

__all__ = ["get_vit_lr_decay_rate"]


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 11) -> float:
    """The learning-rate factor of one parameter, as in the published ConvMAE detectors.

    Patch embeddings and the convolution stages are layer 0, block `i` of stage 3 is layer `i + 1`. Everything else has
    no decay; unlike in ViTDet that includes `pos_embed`, as published.

    Args:
        name: parameter name, beginning with `backbone.` for those of the backbone.
        lr_decay_rate: factor from each layer to the one below.
        num_layers: number of blocks in stage 3.

    Returns:
        `lr_decay_rate ** (num_layers + 1 - layer)`.

    Raises:
        UserError: stage 3 has more blocks than `num_layers`: their learning rates would grow with depth.
    """
    layer = num_layers + 1
    if name.startswith("backbone"):
        if any(f".{part}" in name for part in ("patch_embed", "blocks1.", "blocks2.")):
            layer = 0
        elif ".blocks3." in name:
            layer = int(name.split(".blocks3.")[1].split(".")[0]) + 1
            if layer > num_layers and lr_decay_rate != 1:
                raise UserError(
                    f"Layer-wise decay is set for {num_layers} blocks in stage 3, but the model has {name}; set "
                    "num_layers of optimizer.params.lr_factor_func, in the config, to the depth of stage 3, or give "
                    f"train.layer_decay={lr_decay_rate}, which knows the depth."
                )
    return lr_decay_rate ** (num_layers + 1 - layer)
