"""ConvViT in timm's registry: `timm.create_model("convvit_base_patch16")` once `pretrain` is imported."""

from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from pretrain.names import CLASSIFIERS, has_class_token

if TYPE_CHECKING:
    from pretrain.models import ConvViT

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


def _register(variant: str) -> None:
    def create(pretrained: bool = False, **kwargs: Any) -> "ConvViT":
        from pretrain.models import ConvViT  # these need timm, whose import may have come here
        from pretrain.models.convmae_v2 import ConvViTv2

        return build_model_with_cfg(
            ConvViTv2 if has_class_token(variant) else ConvViT,
            variant,
            pretrained,
            feature_cfg=dict(out_indices=(0, 1, 2), feature_cls="getter"),
            **CLASSIFIERS[variant] | kwargs,
        )

    create.__name__ = create.__qualname__ = variant  # timm's registry goes by it
    globals()[variant] = register_model(create)


for name in CLASSIFIERS:
    _register(name)
