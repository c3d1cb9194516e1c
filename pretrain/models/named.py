"""The named models: `build_model("convmae_convvit_base_patch16")` to pretrain, `"convvit_base_patch16"` to classify.

Those of video are `"videoconvmae_convvit_base_patch16"` and `"videoconvvit_base_patch16"`. Their sizes are in
:mod:`pretrain.names`.
"""

from typing import Any

from pretrain.common.errors import UserError
from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.classifier import ConvViT
from pretrain.models.convmae_v2 import ConvViTv2, MaskedAutoencoderConvViTv2
from pretrain.models.video.autoencoder import VideoConvMAE
from pretrain.models.video.classifier import VideoConvViT
from pretrain.names import CLASSIFIERS, MODELS, SIZES, VIDEO_CLASSIFIERS, VIDEO_MODELS, has_class_token

__all__ = [
    "CLASSIFIERS",
    "MODELS",
    "SIZES",
    "VIDEO_CLASSIFIERS",
    "VIDEO_MODELS",
    "ConvViT",
    "MaskedAutoencoderConvViT",
    "VideoConvMAE",
    "VideoConvViT",
    "build_model",
]


def build_model(name: str, **overrides: Any) -> MaskedAutoencoderConvViT | ConvViT | VideoConvMAE | VideoConvViT:
    """A named model: an autoencoder for pretraining, or a classifier, of images or clips.

    Args:
        name: a key of :data:`MODELS`, :data:`CLASSIFIERS`, :data:`VIDEO_MODELS` or :data:`VIDEO_CLASSIFIERS`.
        overrides: any arguments of the model's class.

    Raises:
        UserError: there is no model of this name.
    """
    v2 = has_class_token(name)
    families: list[tuple[dict[str, dict], type]] = [
        (MODELS, MaskedAutoencoderConvViTv2 if v2 else MaskedAutoencoderConvViT),
        (CLASSIFIERS, ConvViTv2 if v2 else ConvViT),
        (VIDEO_MODELS, VideoConvMAE),
        (VIDEO_CLASSIFIERS, VideoConvViT),
    ]
    for models, make in families:
        if name in models:
            return make(**models[name] | overrides)
    names = [name for models, _ in families for name in models]
    raise UserError(f"There is no model {name!r}; choose one of {', '.join(names)}.")
