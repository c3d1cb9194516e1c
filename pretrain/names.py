"""What command lines name: models with their sizes, targets, positions, ways to sample frames.

Nothing here needs PyTorch, so that a command answers `--help` and a mistake in its arguments at once.
"""

from typing import Any

from pretrain.common.errors import UserError

__all__ = [
    "CLASSIFIERS",
    "CLIP_OPTIONS",
    "LOADER_TRANSFORMS",
    "MIMIC",
    "MODELS",
    "PIXELS",
    "POSITIONS",
    "SAMPLINGS",
    "SIZES",
    "VIDEO_CLASSIFIERS",
    "VIDEO_MODELS",
    "classifier_of",
    "has_class_token",
    "per_stage",
]

PIXELS = "rgb"
"""The target that needs no teacher."""

MIMIC = "mimic"
"""What the loss on visible tokens is called among those of the targets."""

CLIP_OPTIONS = ("num_frames", "tubelet_size", "conv_frames", "multi_scale")
"""Arguments that a video model is built with."""

SAMPLINGS = ("dense", "segments", "still")
"""Which frames make a clip: see :class:`pretrain.data.video.sampling.FrameSampler`."""

POSITIONS = ("learned", "fixed")
"""Position embeddings of a classifier of clips."""

LOADER_TRANSFORMS = ("pretrain", "finetune", "evaluation")
"""The random crop and flip of pretraining, fine-tuning's RandAugment and random erasing, the centre crop."""

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

# Decoders: VideoMAE's (arXiv:2203.12602) of half the width for its S and B; the tiny one is ours.
VIDEO_DECODERS = {
    "tiny_patch16": TINY_DECODER,
    "small_patch16": dict(decoder_embed_dim=192, decoder_depth=4, decoder_num_heads=3),
    "base_patch16": dict(decoder_embed_dim=384, decoder_depth=4, decoder_num_heads=6),
}
VIDEO_CLASSIFIERS: dict[str, dict] = {f"videoconvvit_{size}": CLASSIFIERS[f"convvit_{size}"] for size in VIDEO_DECODERS}
VIDEO_MODELS: dict[str, dict] = {
    f"videoconvmae_convvit_{size}": CLASSIFIERS[f"convvit_{size}"] | decoder for size, decoder in VIDEO_DECODERS.items()
}


def has_class_token(name: str) -> bool:
    """Whether a model of this name is of ConvMAE-v2."""
    return name.startswith(("convmaev2_", "convvitv2_"))


def classifier_of(name: str) -> str:
    """The classifier that takes the encoder of one of :data:`MODELS`: "convmae_convvit_tiny_patch8" has
    "convvit_tiny_patch8", and "convmaev2_convvit_tiny_patch8" has "convvitv2_tiny_patch8"."""
    size = name.partition("_convvit_")[2]
    return f"{'convvitv2' if has_class_token(name) else 'convvit'}_{size}"


def per_stage(name: str, value: Any) -> tuple[Any, ...]:
    """One value per stage, from one number for all three or from three.

    Raises:
        UserError: neither one number nor three.
    """
    values = (value,) * 3 if isinstance(value, int | float) else tuple(value)
    if len(values) != 3:
        raise UserError(f"{name} must be one number or one for each of the three stages, got {value}.")
    return values
