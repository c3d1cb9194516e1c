"""The named models: `build_model("convmae_convvit_base_patch16")` to pretrain, `"convvit_base_patch16"` to classify."""

from typing import Any

from pretrain.common.errors import UserError
from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.classifier import ConvViT
from pretrain.models.convmae_v2 import ConvViTv2, MaskedAutoencoderConvViTv2

__all__ = [
    "CLASSIFIERS",
    "MODELS",
    "SIZES",
    "ConvViT",
    "MaskedAutoencoderConvViT",
    "build_model",
    "classifier_of",
    "has_class_token",
]

TINY_DECODER = dict(decoder_embed_dim=96, decoder_depth=2, decoder_num_heads=4)

# Paper MCMAE (arXiv:2205.03892), table of architectures. The tiny ones are ours: for tests, and for small images.
SIZES: dict[str, dict[str, Any]] = {
    "tiny_patch8": dict(
        patch_size=(4, 2, 1), img_size=64, embed_dim=(48, 96, 144), depth=(1, 2, 2), num_heads=4, **TINY_DECODER
    ),
    "tiny_patch16": dict(embed_dim=(32, 64, 128), depth=(1, 1, 4), num_heads=4, **TINY_DECODER),
    "tiny_patch8_32": dict(
        patch_size=(2, 2, 2),
        img_size=32,
        embed_dim=(32, 64, 128),
        depth=(1, 1, 3),
        num_heads=4,
        decoder_embed_dim=64,
        decoder_depth=1,
        decoder_num_heads=4,
    ),
    "small_patch16": dict(embed_dim=(128, 256, 384), depth=(2, 2, 11), num_heads=6),
    "base_patch16": dict(embed_dim=(256, 384, 768), depth=(2, 2, 11), num_heads=12),
    "large_patch16": dict(embed_dim=(384, 768, 1024), depth=(2, 2, 23), num_heads=16),
    "huge_patch16": dict(embed_dim=(768, 1024, 1280), depth=(2, 2, 31), num_heads=16),
}

MODELS: dict[str, dict] = {
    f"{family}_convvit_{size}": dict(masking=masking, **config)
    for family, masking in (("convmae", "random"), ("fastconvmae", "complementary"), ("convmaev2", "random"))
    for size, config in SIZES.items()
}
CLASSIFIERS: dict[str, dict] = {
    f"{family}_{size}": {name: value for name, value in config.items() if not name.startswith("decoder_")}
    for family in ("convvit", "convvitv2")
    for size, config in SIZES.items()
}


def has_class_token(name: str) -> bool:
    """Whether a model of this name is of ConvMAE-v2."""
    return name.startswith(("convmaev2_", "convvitv2_"))


def classifier_of(name: str) -> str:
    """The classifier that takes the encoder of one of :data:`MODELS`: "convmae_convvit_tiny_patch8" has
    "convvit_tiny_patch8", and "convmaev2_convvit_tiny_patch8" has "convvitv2_tiny_patch8"."""
    size = name.partition("_convvit_")[2]
    return f"{'convvitv2' if has_class_token(name) else 'convvit'}_{size}"


def build_model(name: str, **overrides: Any) -> MaskedAutoencoderConvViT | ConvViT:
    """A named model: an autoencoder for pretraining, or a classifier.

    Args:
        name: one of :data:`MODELS` or :data:`CLASSIFIERS`.
        overrides: any arguments of :class:`~pretrain.models.autoencoder.MaskedAutoencoderConvViT`, or of
            :class:`~pretrain.models.classifier.ConvViT`.

    Raises:
        UserError: there is no model of this name.
    """
    if name in CLASSIFIERS:
        return (ConvViTv2 if has_class_token(name) else ConvViT)(**CLASSIFIERS[name] | overrides)
    if name not in MODELS:
        raise UserError(f"There is no model {name!r}; choose one of {', '.join([*MODELS, *CLASSIFIERS])}.")
    model = MaskedAutoencoderConvViTv2 if has_class_token(name) else MaskedAutoencoderConvViT
    return model(**MODELS[name] | overrides)
