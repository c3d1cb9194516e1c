"""The classifier of clips: its size, its positions, what it is trained on."""

import pytest
import torch
from timm.optim import param_groups_layer_decay

from pretrain.models import VideoConvViT, build_model
from pretrain.models.video.positions import resize_clip_pos_embed

TINY = dict(img_size=32, num_frames=4, embed_dim=(8, 12, 24), depth=(1, 1, 2), num_heads=4)


@pytest.mark.parametrize(("num_classes", "millions"), [(400, 85.98), (174, 85.81)])
def test_parameters_of_the_base_model(num_classes, millions):
    """Published is 86 M in every row of the table."""
    with torch.device("meta"):
        model = build_model("videoconvvit_base_patch16", num_classes=num_classes)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("conv_frames", [1, 3])
def test_every_parameter_is_trained(conv_frames):
    config = dict(num_classes=5, conv_frames=conv_frames, drop_path_rate=0.2, act_checkpoint=True)
    model = VideoConvViT(**TINY, **config)
    model(torch.randn(2, 3, 4, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_other_sizes_and_numbers_of_frames():
    model = VideoConvViT(**TINY, num_classes=5, in_chans=2).eval()
    assert model(torch.randn(2, 2, 8, 48, 64)).shape == (2, 5)
    for shape, message in (
        ((1, 2, 3, 32, 32), "A clip of 3 frames"),
        ((1, 2, 4, 30, 32), "30x32 is not divisible"),
        ((1, 3, 4, 32, 32), "do not fit a model of clips"),
        ((1, 2, 32, 32), "do not fit a model of clips"),
    ):
        with pytest.raises(ValueError, match=message):
            model(torch.randn(shape))


def test_fixed_positions_are_not_trained():
    model = VideoConvViT(**TINY, num_classes=5, positions="fixed")
    assert not model.pos_embed.requires_grad and model.pos_embed.std() > 0.3
    assert VideoConvViT(**TINY).pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ValueError, match="positions must be one of learned, fixed, got 'none'"):
        VideoConvViT(**TINY, positions="none")


def test_layers_of_the_learning_rate():
    with torch.device("meta"):
        model = build_model("videoconvvit_base_patch16")
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.75)
    scales = {
        name: g["lr_scale"] for g in groups for p in g["params"] for name, q in model.named_parameters() if p is q
    }
    assert scales["head.weight"] == 1 and scales["blocks3.10.attn.qkv.weight"] == pytest.approx(0.75)
    assert scales["pos_embed"] == scales["blocks1.0.attn.weight"] == pytest.approx(0.75**12)


def test_resized_positions():
    line = torch.arange(4.0).view(1, 4, 1)  # a position that tells its slot
    assert torch.equal(resize_clip_pos_embed(line, (4, 1, 1), (4, 1, 1)), line)
    assert resize_clip_pos_embed(line, (4, 1, 1), (2, 1, 1)).flatten().tolist() == [0.5, 2.5]
    image = torch.randn(1, 4, 6)
    assert torch.equal(resize_clip_pos_embed(image, (1, 2, 2), (3, 2, 2)), image.repeat(1, 3, 1))
    assert resize_clip_pos_embed(image, (1, 2, 2), (2, 3, 1)).shape == (1, 6, 6)
    with pytest.raises(ValueError, match=r"4 positions is not a grid of \(2, 1, 1\)"):
        resize_clip_pos_embed(line, (2, 1, 1), (4, 1, 1))
