"""ConvViT under a feature pyramid network, at sizes other than the trained one."""

import pytest
import torch

from convmae_det import ConvViTFPN

TINY = dict(img_size=64, embed_dim=(8, 16, 24), depth=(1, 1, 2), num_heads=4, window_size=2, global_block_indexes=[1])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (32, 64)])
def test_any_size(height, width):
    model = ConvViTFPN(**TINY)
    outputs = model(torch.randn(2, 3, height, width))
    for i, (name, spec) in enumerate(model.output_shape().items()):
        assert spec.stride == 4 * 2**i
        assert outputs[name].shape == (2, spec.channels, height // spec.stride, width // spec.stride)
    sum(out.square().sum() for out in outputs.values()).backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None and p.grad.isfinite().all()) == (name != "pos_embed"), name


def test_features_do_not_depend_on_the_other_images_of_a_batch():
    model = ConvViTFPN(**TINY)
    images = torch.randn(3, 3, 64, 64)
    batch, alone = model(images), model(images[1:2])
    for name in batch:
        torch.testing.assert_close(batch[name][1:2], alone[name], atol=1e-5, rtol=1e-5)


def test_activation_checkpointing_changes_nothing():
    plain, checkpointed = (ConvViTFPN(**TINY, use_act_checkpoint=value) for value in (False, True))
    checkpointed.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    for model in (plain, checkpointed):
        sum(out.square().sum() for out in model(images).values()).backward()
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert a.grad is b.grad is None or torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(img_size=100), "Image size 100x100 is not divisible by the total stride 16"),
        (dict(global_block_indexes=[2]), r"global_block_indexes \[2\]"),
        (dict(num_heads=5), "embed_dim 24 is not divisible by num_heads 5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvViTFPN(**TINY | arguments)
