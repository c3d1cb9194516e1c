"""The models: `build_model("convmae_convvit_base_patch16")` to pretrain, `"convvit_base_patch16"` to classify."""

from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.classifier import ConvViT
from pretrain.models.named import CLASSIFIERS, MODELS, SIZES, build_model

__all__ = ["CLASSIFIERS", "MODELS", "SIZES", "ConvViT", "MaskedAutoencoderConvViT", "build_model"]
