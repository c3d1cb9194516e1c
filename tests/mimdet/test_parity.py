"""The backbones of the MIMDet family against the published code's outputs and gradients."""

import torch
from detectron2.structures import ImageList
from parity import Golden, gradient_errors, relative_error
from torch import nn

from convmae_det import ConvViTFPN
from mimdet import BenchmarkingViT, MIMDetBackbone


def check_parity(model: nn.Module, reference: Golden, *inputs, unused: tuple[str, ...] = ()) -> None:
    """Outputs to 1e-5, and the gradients of `sum(output * grad_weight)` to 1e-4 of the largest value."""
    model.load_state_dict(reference.group("param"))
    outputs = model(*inputs)
    expected = reference.group("output")
    assert outputs.keys() == expected.keys() == model.output_shape().keys()
    for name, output in outputs.items():
        assert relative_error(output, expected[name]) <= 1e-5, name
    sum((output * reference[f"grad_weight.{name}"]).sum() for name, output in outputs.items()).backward()
    for name in unused:
        parameter = model.get_parameter(name)
        assert parameter.grad is None
        parameter.requires_grad_(False)
    errors = gradient_errors(model, reference.group("grad"))
    assert max(errors.values()) <= 1e-4, errors


def test_mimdet(golden):
    reference = golden("mimdet_tiny")
    config = dict(reference.config)
    images = ImageList(reference["input.images"], config.pop("image_sizes"))
    check_parity(MIMDetBackbone(**config), reference, images, reference["input.noise"])


def test_benchmarking_vit(golden):
    reference = golden("benchmarking_vit_tiny")
    # With one block a group none of them is windowed.
    unused = ("windowed_rel_pos_bias.relative_position_bias_table",)
    check_parity(BenchmarkingViT(**reference.config), reference, reference["input.images"], unused=unused)


def test_convvit_fpn(golden):
    reference = golden("convvit_fpn_tiny")
    check_parity(ConvViTFPN(**reference.config), reference, reference["input.images"])


def test_initial_positions_are_the_published_ones(golden):
    for name, model in (
        ("benchmarking_vit_tiny", BenchmarkingViT(img_size=64, embed_dim=64, depth=4, num_heads=4)),
        (
            "mimdet_tiny",
            MIMDetBackbone(
                img_size=64,
                embed_dim=32,
                depth=1,
                num_heads=4,
                decoder_embed_dim=24,
                decoder_depth=1,
                decoder_num_heads=4,
            ),
        ),
    ):
        published = {n: t for n, t in golden(name).group("param").items() if n.endswith("pos_embed")}
        for parameter, table in published.items():
            torch.testing.assert_close(model.get_parameter(parameter).detach(), table, atol=1e-6, rtol=0)
