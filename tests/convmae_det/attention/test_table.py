"""Attention with tables of relative position biases, against the plain computation with Swin's indices."""

import copy

import pytest
import torch
from detectron2.modeling.backbone.utils import window_partition, window_unpartition
from timm.layers import gen_relative_position_index
from torch import nn

from convmae_det.attention import table as table_attention
from convmae_det.attention.table import RelPosBiasTable, TableAttention

HEADS, DIM = 3, 12


def plain_attention(attn: TableAttention, x: torch.Tensor, table: RelPosBiasTable) -> torch.Tensor:
    """Over grids `(M, S, S, C)`, with the N×N matrix and its bias."""
    M, H, W, C = x.shape
    # (M, H, W, 3 * C) -> 3 of (M, heads, N, d)
    q, k, v = attn.qkv(x).view(M, H * W, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
    bias = table.relative_position_bias_table[gen_relative_position_index((H, W))].permute(2, 0, 1)
    weights = (q * (C // HEADS) ** -0.5) @ k.mT + bias
    return attn.proj((weights.softmax(-1) @ v).transpose(1, 2).reshape(M, H, W, C))


@pytest.mark.parametrize("chunk", [1, 100, 600, 2**20], ids=lambda n: f"{n} logits at a time")
@pytest.mark.parametrize(("window", "height", "width"), [(0, 5, 5), (4, 8, 4), (4, 6, 9)])
def test_outputs_and_gradients_are_those_of_the_plain_computation(monkeypatch, chunk, window, height, width):
    monkeypatch.setattr(table_attention, "CPU_CHUNK", chunk)
    table = RelPosBiasTable(window or height, HEADS)
    nn.init.normal_(table.relative_position_bias_table)
    attn = TableAttention(DIM, HEADS, table, window_size=window)
    x = torch.randn(2, height, width, DIM, requires_grad=True)
    weight = torch.randn(2, height, width, DIM)
    variables = [x, table.relative_position_bias_table, *attn.parameters()]

    windows, padded = window_partition(x, window or height)
    expected = window_unpartition(plain_attention(attn, windows, table), window or height, padded, (height, width))
    expected_gradients = torch.autograd.grad((expected * weight).sum(), variables)
    actual = attn(x, nn.Identity())
    gradients = torch.autograd.grad((actual * weight).sum(), variables)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)
    for ours, plain in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def test_grids_that_are_not_square_have_offsets_of_their_own():
    """A 2×3 grid in the corner of a 3×3 one: the table of the larger grid, cut to the offsets of the smaller."""
    q, k, v = torch.randn(3, 1, HEADS, 9, 4).unbind()
    table = torch.randn(HEADS, 5, 5)
    index = gen_relative_position_index((3, 3))[:6, :6]
    bias = table.flatten(1)[:, index]
    expected = (q[:, :, :6] @ k[:, :, :6].mT / 2 + bias).softmax(-1) @ v[:, :, :6]
    actual = table_attention.table_attention(q[:, :, :6], k[:, :, :6], v[:, :, :6], table[:, 1:4])
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("grids", [1, 2])
def test_compiled_and_traced_attention_is_the_same(grids):
    q, k, v = torch.randn(3, grids, HEADS, 6, 4).unbind()
    table = torch.randn(HEADS, 3, 5)
    expected = table_attention.table_attention(q, k, v, table)
    compiled = torch.compile(table_attention.table_attention, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v, table), expected)
    traced = torch.jit.trace(table_attention.table_attention, (q, k, v, table))
    torch.testing.assert_close(traced(q, k, v, table), expected)


def test_a_bfloat16_step_stays_close():
    table = RelPosBiasTable(4, HEADS)
    attn = TableAttention(DIM, HEADS, table)
    x, norm = torch.randn(2, 4, 4, DIM), nn.LayerNorm(DIM)
    expected = attn(x, norm)
    with torch.autocast("cpu", torch.bfloat16):
        out = attn(x, norm)
    out.float().square().sum().backward()
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=0)
    assert table.relative_position_bias_table.grad.isfinite().all()


def test_state_dict_has_the_index_that_published_files_have(golden):
    reference = golden("benchmarking_vit_tiny")
    published = {
        name.removeprefix("global_rel_pos_bias."): tensor
        for name, tensor in reference.group("param").items()
        if name.startswith("global_rel_pos_bias.")
    }
    table = RelPosBiasTable(4, 4)
    table.load_state_dict(published)
    state = table.state_dict()
    assert state.keys() == published.keys()
    assert torch.equal(state["relative_position_index"], published["relative_position_index"].long())
    assert not list(table.buffers())
    with pytest.raises(RuntimeError, match="relative_position_index"):
        table.load_state_dict({"relative_position_bias_table": torch.zeros(49, 4)})
    with pytest.raises(RuntimeError, match=r"size mismatch for relative_position_index: \(9, 9\)"):
        table.load_state_dict(published | {"relative_position_index": torch.zeros(9, 9)})


def test_blocks_share_the_table_after_a_deepcopy():
    net = nn.Module()
    net.table = RelPosBiasTable(2, HEADS)
    net.blocks = nn.ModuleList(TableAttention(DIM, HEADS, net.table) for _ in range(2))
    twin = copy.deepcopy(net)
    assert len(list(twin.parameters())) == 9
    assert all(block._shared_table[0] is twin.table for block in twin.blocks)


def test_the_index_of_a_large_grid_takes_no_memory_of_the_device():
    state = RelPosBiasTable(4, HEADS).to("meta").state_dict()
    assert state["relative_position_bias_table"].device.type == "meta"
    assert state["relative_position_index"].device.type == "cpu"
