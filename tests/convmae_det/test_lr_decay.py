"""Layer-wise decay as published; the whole optimizer is checked in tests/configs."""

import pytest

from convmae_det import get_vit_lr_decay_rate
from pretrain.common.errors import UserError


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("backbone.net.patch_embed1.proj.weight", 0),
        ("backbone.net.patch_embed4.weight", 0),
        ("backbone.net.blocks1.1.conv1.weight", 0),
        ("backbone.net.blocks2.0.attn.bias", 0),
        ("backbone.net.blocks3.0.attn.qkv.weight", 1),
        ("backbone.net.blocks3.10.mlp.fc1.bias", 11),
        ("backbone.net.pos_embed", 12),
        ("backbone.simfp_2.0.weight", 12),
        ("roi_heads.box_head.fc1.weight", 12),
    ],
)
def test_layer_of(name, layer):
    assert get_vit_lr_decay_rate(name, lr_decay_rate=0.8, num_layers=11) == 0.8 ** (12 - layer)


def test_more_blocks_than_the_decay_is_set_for():
    name = "backbone.net.blocks3.11.norm1.bias"
    with pytest.raises(UserError, match=r"set for 11 blocks in stage 3, but the model has backbone.*blocks3\.11\."):
        get_vit_lr_decay_rate(name, lr_decay_rate=0.8, num_layers=11)
    assert get_vit_lr_decay_rate(name, lr_decay_rate=1.0, num_layers=11) == 1
