"""ConvViT for segmentation: initialisation, sizes other than the trained one, saving memory."""

import math

import pytest
import torch

from convmae_det.attention.table import RelPosBiasTable
from convmae_seg import ConvViTSeg
from pretrain.models.pos_embed import resize_pos_embed

TINY = dict(img_size=64, embed_dim=(8, 16, 24), depth=(1, 1, 2), num_heads=4)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (48, 112)])
def test_any_size(height, width):
    model = ConvViTSeg(**TINY)
    outputs = model(torch.randn(2, 3, height, width))
    sizes = [(height // s, width // s) for s in (4, 8, 16)]
    sizes.append(tuple((side - 1) // 2 for side in sizes[-1]))
    for (name, spec), size in zip(model.output_shape().items(), sizes, strict=True):
        assert outputs[name].shape == (2, spec.channels, *size)
        assert outputs[name].is_contiguous(memory_format=torch.channels_last)
    sum(out.square().sum() for out in outputs.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_another_size_is_that_of_resized_positions_and_tables():
    model, larger = ConvViTSeg(**TINY).eval(), ConvViTSeg(**TINY | dict(img_size=96)).eval()
    state = {name: t for name, t in model.state_dict().items() if not name.endswith("index")}
    state["pos_embed"] = resize_pos_embed(state["pos_embed"], (4, 4), (6, 6))
    for name, block in model.blocks3.named_children():
        torch.nn.init.normal_(block.attn.relative_position_bias_table)
        table = RelPosBiasTable.forward(block.attn, 6, 6)  # (heads, 11, 11)
        state[f"blocks3.{name}.attn.relative_position_bias_table"] = table.flatten(1).T
    larger.load_state_dict(state, strict=False)
    image = torch.randn(1, 3, 96, 96)
    expected = larger(image)
    for name, out in model(image).items():
        torch.testing.assert_close(out, expected[name], rtol=1e-5, atol=1e-5)


def test_initialisation():
    model = ConvViTSeg(embed_dim=(8, 16, 96), depth=(1, 1, 4), num_heads=4, img_size=64)
    for i, block in enumerate(model.blocks3):
        for linear in (block.attn.proj, block.mlp.fc2):
            assert linear.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * (i + 1)), rel=0.05)
        for linear in (block.attn.qkv, block.mlp.fc1):
            assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert (block.gamma_1 == 1).all() and (block.gamma_2 == 1).all()
        assert (block.attn.relative_position_bias_table == 0).all()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 3 + 2 * 6 and all(norm.eps == 1e-5 for norm in norms)


def test_drop_path_grows_over_all_blocks():
    model = ConvViTSeg(**TINY, drop_path_rate=0.3)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for s in (model.blocks1, model.blocks2, model.blocks3) for b in s]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("stages", [True, (False, False, True)])
def test_activation_checkpointing_changes_nothing_but_runs_blocks_twice(stages):
    plain, checkpointed = (ConvViTSeg(**TINY, use_act_checkpoint=value) for value in (False, stages))
    checkpointed.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for model, runs in ((plain, 1), (checkpointed, 2)):
        inputs = []
        model.blocks3[0].attn.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
        sum(out.square().sum() for out in model(images).values()).backward()
        assert len(inputs) == runs
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [
        (dict(img_size=100), 64, "Image size 100x100 is not divisible by the total stride 16"),
        (dict(num_heads=5), 64, "embed_dim 24 is not divisible by num_heads 5"),
        (dict(img_size=32), 64, "Image size 32x32 is below 48 pixels"),
        ({}, 32, "Image size 32x32 is below 48 pixels"),
        ({}, 72, "Image size 72x72 is not divisible by the total stride 16"),
    ],
)
def test_bad_arguments(arguments, size, message):
    with pytest.raises(ValueError, match=message):
        ConvViTSeg(**TINY | arguments)(torch.zeros(1, 3, size, size))
