"""The ConvViT backbone against the published code's outputs, and at sizes that were hard-coded there."""

import pytest
import torch
from parity import gradient_errors, relative_error
from torch import nn

from convmae_det import ConvViT

TINY = dict(img_size=64, embed_dim=(8, 16, 24), depth=(1, 1, 2), num_heads=4, use_rel_pos=True)


@pytest.mark.parametrize("case", [0, 1])
def test_parity_with_published_code(golden, case):
    reference = golden("convvit_det_tiny")
    config = {k: v for k, v in reference.config.items() if k != "sizes"}
    model = ConvViT(use_rel_pos=True, **config)
    model.load_state_dict(reference.group("param"))
    out = model(reference[f"input{case}.images"])
    assert out.keys() == {"last_feat"}
    assert relative_error(out["last_feat"], reference[f"output{case}.last_feat"]) <= 1e-5
    (out["last_feat"] * reference[f"grad_weight{case}"]).sum().backward()
    errors = gradient_errors(model, reference.group(f"grad{case}"))
    assert max(errors.values()) <= 1e-4, errors


def test_one_window_over_the_grid_equals_global_attention():
    windowed, plain = (ConvViT(**TINY, window_size=4, window_block_indexes=i) for i in ([0, 1], []))
    plain.load_state_dict(windowed.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(windowed(images)["last_feat"], plain(images)["last_feat"])


@pytest.mark.parametrize("per_stage", [True, (True, False, True)])
def test_activation_checkpointing_changes_nothing(per_stage):
    plain, checkpointed = (ConvViT(**TINY, use_act_checkpoint=value) for value in (False, per_stage))
    checkpointed.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 96)
    for model in (plain, checkpointed):
        model(images)["last_feat"].square().sum().backward()
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    ("patch_size", "height", "width"),
    [((4, 2, 2), 48, 80), ((4, 2, 4), 64, 96), ((2, 2, 2), 64, 40), ((8, 2, 2), 32, 96)],
)
def test_any_size_and_stride(patch_size, height, width):
    model = ConvViT(
        **TINY | dict(patch_size=patch_size, mlp_ratio=(4, 2, 3), in_chans=1), window_size=3, window_block_indexes=[0]
    )
    stride = model.output_shape()["last_feat"].stride
    out = model(torch.randn(2, 1, height, width))["last_feat"]
    assert out.shape == (2, 24, height // stride, width // stride)
    out.sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


def test_other_norms_and_activations_run_unfused():
    model = ConvViT(**TINY, norm_layer=nn.RMSNorm, act_layer=nn.ReLU, qkv_bias=False, use_abs_pos=False)
    model(torch.randn(1, 3, 64, 64))["last_feat"].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(img_size=100), "Image size 100x100 is not divisible by the total stride 16"),
        (dict(window_block_indexes=[2]), r"window_block_indexes \[2\]"),
        (dict(mlp_ratio=(4, 4)), "mlp_ratio must be one number or one for each of the three stages"),
        (dict(num_heads=5), "embed_dim 24 is not divisible by num_heads 5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvViT(**TINY | arguments)


def test_image_not_divisible_by_stride():
    with pytest.raises(ValueError, match="70x64 is not divisible"):
        ConvViT(**TINY)(torch.randn(1, 3, 70, 64))
