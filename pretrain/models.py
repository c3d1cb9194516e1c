"""The named models: `build_model("convmae_convvit_base_patch16", norm_pix_loss=True)`."""

from pretrain.autoencoder import MaskedAutoencoderConvViT

__all__ = ["MODELS", "SIZES", "MaskedAutoencoderConvViT", "build_model"]

TINY_DECODER = dict(decoder_embed_dim=96, decoder_depth=2, decoder_num_heads=4)

# Paper MCMAE (arXiv:2205.03892), table of architectures. The tiny ones are ours: for tests, and for the demo's small
# images.
SIZES = {
    "tiny_patch8": dict(
        patch_size=(4, 2, 1), img_size=64, embed_dim=(48, 96, 144), depth=(1, 2, 2), num_heads=4, **TINY_DECODER
    ),
    "tiny_patch16": dict(embed_dim=(32, 64, 128), depth=(1, 1, 4), num_heads=4, **TINY_DECODER),
    "small_patch16": dict(embed_dim=(128, 256, 384), depth=(2, 2, 11), num_heads=6),
    "base_patch16": dict(embed_dim=(256, 384, 768), depth=(2, 2, 11), num_heads=12),
    "large_patch16": dict(embed_dim=(384, 768, 1024), depth=(2, 2, 23), num_heads=16),
    "huge_patch16": dict(embed_dim=(768, 1024, 1280), depth=(2, 2, 31), num_heads=16),
}

MODELS: dict[str, dict] = {
    f"{family}_convvit_{size}": dict(masking=masking, **config)
    for family, masking in (("convmae", "random"), ("fastconvmae", "complementary"))
    for size, config in SIZES.items()
}


def build_model(name: str, **overrides) -> MaskedAutoencoderConvViT:
    """A named model; `overrides` are any arguments of :class:`~pretrain.autoencoder.MaskedAutoencoderConvViT`.

    Raises:
        ValueError: there is no model of this name.
    """
    if name not in MODELS:
        raise ValueError(f"There is no model {name!r}; choose one of {', '.join(MODELS)}.")
    return MaskedAutoencoderConvViT(**MODELS[name] | overrides)
