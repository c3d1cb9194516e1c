"""Masked-convolution autoencoder pretraining: ConvMAE and FastConvMAE, on torch, torchvision and timm alone."""
