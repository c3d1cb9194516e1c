"""ConvViT in timm's registry: `timm.create_model("convvit_base_patch16")` once `pretrain` is imported."""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from pretrain.models import CLASSIFIERS, ConvViT

__all__: list[str] = []  # register_model adds the names

# No weights to download: published files are loaded with pretrain.finetune or pretrain.checkpoints.classifier_weights.
_CFG = dict(
    url="",
    num_classes=1000,
    input_size=(3, 224, 224),
    pool_size=None,
    crop_pct=0.875,
    interpolation="bicubic",
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    first_conv="patch_embed1.proj",
    classifier="head",
    license="mit",
)
default_cfgs = generate_default_cfgs(
    {name: _CFG | dict(input_size=(3, *(config.get("img_size", 224),) * 2)) for name, config in CLASSIFIERS.items()}
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> ConvViT:
    return build_model_with_cfg(
        ConvViT,
        variant,
        pretrained,
        feature_cfg=dict(out_indices=(0, 1, 2), feature_cls="getter"),
        **CLASSIFIERS[variant] | kwargs,
    )


@register_model
def convvit_tiny_patch8_32(pretrained: bool = False, **kwargs: Any) -> ConvViT:
    return _create("convvit_tiny_patch8_32", pretrained, **kwargs)


@register_model
def convvit_tiny_patch8(pretrained: bool = False, **kwargs: Any) -> ConvViT:
    return _create("convvit_tiny_patch8", pretrained, **kwargs)


@register_model
def convvit_tiny_patch16(pretrained: bool = False, **kwargs: Any) -> ConvViT:
    return _create("convvit_tiny_patch16", pretrained, **kwargs)


@register_model
def convvit_small_patch16(pretrained: bool = False, **kwargs: Any) -> ConvViT:
    return _create("convvit_small_patch16", pretrained, **kwargs)


@register_model
def convvit_base_patch16(pretrained: bool = False, **kwargs: Any) -> ConvViT:
    return _create("convvit_base_patch16", pretrained, **kwargs)


@register_model
def convvit_large_patch16(pretrained: bool = False, **kwargs: Any) -> ConvViT:
    return _create("convvit_large_patch16", pretrained, **kwargs)


@register_model
def convvit_huge_patch16(pretrained: bool = False, **kwargs: Any) -> ConvViT:
    return _create("convvit_huge_patch16", pretrained, **kwargs)
