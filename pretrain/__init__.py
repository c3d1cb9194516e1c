"""Masked-convolution autoencoder pretraining and classification: ConvMAE, FastConvMAE and ConvViT, on torch,
torchvision and timm alone.

Importing this package makes the classifiers known to timm: `timm.create_model("convvit_base_patch16")`.
"""

from pretrain.models import timm_registry as timm_registry

__version__ = "0.1.0"
