"""Mask R-CNN on a simple feature pyramid (ViTDet) whose backbone is ConvViT-B, the ConvMAE encoder."""

from functools import partial

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from torch import nn

from convmae_det import ConvViT
from convmae_det.pyramid import FeaturePyramid

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
model.backbone.net = L(ConvViT)(
    img_size="${data.image_size}",
    patch_size=(4, 2, 2),
    embed_dim=(256, 384, 768),
    depth=(2, 2, 11),
    num_heads=12,
    mlp_ratio=4,
    qkv_bias=True,
    drop_path_rate=0.1,
    norm_layer=partial(nn.LayerNorm, eps=1e-6),
    use_abs_pos=True,
    use_rel_pos=True,
    window_size=14,
    window_block_indexes=[0, 2, 3, 5, 6, 8, 9],  # global attention in 1, 4, 7, 10
    use_act_checkpoint=False,
    pretrain_img_size=224,
    out_feature="last_feat",
)
model.backbone._target_ = FeaturePyramid
model.backbone.square_pad = "${data.image_size}"
