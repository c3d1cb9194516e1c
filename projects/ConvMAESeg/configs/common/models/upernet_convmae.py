"""UperNet whose backbone is ConvViT-B, the ConvMAE encoder; `data.image_size` comes from the config that uses it."""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from convmae_seg import ConvViTSeg, FCNHead, Segmentor, SlidingWindow, UperHead

constants = model_zoo.get_config("common/data/constants.py").constants

model = L(Segmentor)(
    num_classes=150,
    backbone=L(ConvViTSeg)(
        img_size="${data.image_size}",
        patch_size=(4, 2, 2),
        embed_dim=(256, 384, 768),
        depth=(2, 2, 11),
        num_heads=12,
        mlp_ratio=4,
        qkv_bias=True,
        drop_path_rate=0.2,
        use_act_checkpoint=False,
    ),
    decode_head=L(UperHead)(
        in_channels=[
            "${...backbone.embed_dim[0]}",
            "${...backbone.embed_dim[1]}",
            "${...backbone.embed_dim[2]}",
            "${...backbone.embed_dim[2]}",
        ],
        num_classes="${..num_classes}",
        channels=768,
        dropout=0.1,
    ),
    auxiliary_head=L(FCNHead)(
        in_channels="${..backbone.embed_dim[2]}",
        num_classes="${..num_classes}",
        channels=256,
        dropout=0.1,
    ),
    auxiliary_weight=0.4,
    ignore_label=255,
    pixel_mean=constants.imagenet_rgb256_mean,
    pixel_std=constants.imagenet_rgb256_std,
    input_format="RGB",
    # stride=None is two thirds of the window; window_size=None takes whole images
    inference=L(SlidingWindow)(window_size="${data.image_size}", stride=None, window_batch_size=4, max_logits=2**22),
    return_logits=False,
)
