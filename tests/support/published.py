"""Checkpoints that look like the published ones: their names, with every width divided by 32."""

import argparse

import torch

from pretrain.models.trunk import ConvViTTrunk

EMBED_DIM = (8, 12, 24)


def scaled(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Random tensors under the given names; sizes that are widths of the published models are divided by 32."""
    return {
        name: torch.randn([size // 32 if size >= 256 and size % 128 == 0 else size for size in shape])
        for name, shape in shapes.items()
    }


def full_size(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Tensors of the given shapes that take no memory."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def pretraining_file(state: dict[str, torch.Tensor], model: str = "convmae_convvit_base_patch16") -> dict:
    """What the published pretraining code saves."""
    args = argparse.Namespace(model=model, mask_ratio=0.75, norm_pix_loss=True, device="cuda")
    return {"model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 1599, "scaler": {}, "args": args}


def encoder_only(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The file as first released: decoder and mask token taken off."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(("decoder_", "mask_token"))}


def mae_vit(detector: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """An MAE ViT with its decoder, its trunk as in the detector's `backbone.net`."""
    net = {
        name.removeprefix("backbone.net."): shape
        for name, shape in detector.items()
        if name.startswith("backbone.net.") and "rel_pos" not in name
    }
    around = {
        "cls_token": [1, 1, 768],
        "norm.weight": [768],
        "norm.bias": [768],
        "mask_token": [1, 1, 512],
        "decoder_pos_embed": [1, 197, 512],
        "decoder_embed.weight": [512, 768],
        "decoder_embed.bias": [512],
        "decoder_blocks.0.norm1.weight": [512],
        "decoder_norm.weight": [512],
        "decoder_pred.weight": [768, 512],
    }
    return scaled({**around, **net})


def convmae_v2(embed_dim=(8, 16, 32), cls_slot=True) -> dict[str, torch.Tensor]:
    """ConvMAE-v2: a class token, other sizes than the published models, no stage*_output_decode."""
    state = ConvViTTrunk(embed_dim=embed_dim, depth=(1, 2, 3), mlp_ratio=(4, 4, 2), num_heads=4).state_dict()
    dim = embed_dim[2]
    around = {"cls_token": torch.randn(1, 1, dim), "pos_embed": torch.randn(1, 16 + cls_slot, dim)}
    return {**state, **around, "norm.weight": torch.randn(dim), "norm.bias": torch.randn(dim)}
