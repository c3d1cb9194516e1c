"""The models: `build_model("convmae_convvit_base_patch16")` to pretrain, `"convvit_base_patch16"` to classify."""

from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.classifier import ConvViT
from pretrain.models.named import CLASSIFIERS, MODELS, SIZES, VIDEO_CLASSIFIERS, VIDEO_MODELS, build_model
from pretrain.models.video.autoencoder import VideoConvMAE
from pretrain.models.video.classifier import VideoConvViT

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
