"""Masked-convolution autoencoder pretraining and classification: ConvMAE, FastConvMAE and ConvViT, on torch,
torchvision and timm alone.

Importing this package makes the classifiers known to timm: `timm.create_model("convvit_base_patch16")`. They are
registered when timm is imported, before or after this package, which itself imports neither timm nor torch.
"""

from pretrain.common.after_import import import_after

__version__ = "0.1.0"

import_after("timm", "pretrain.timm_registry")
