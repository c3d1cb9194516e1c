"""Attention and backbone against the published computation with the N×N matrix."""

import pytest
import torch
from parity import relative_error
from torch import nn

from convmae_det import ConvViT
from convmae_det.attention import chunked as chunked
from convmae_det.attention.chunked import chunked_attention
from convmae_det.attention.folded import folded_attention
from convmae_det.attention.rel_pos import RelPosAttention, attention_function
from convmae_det.baselines import DenseConvViT, windowed

DIM, HEADS, STORED = 24, 3, (5, 7)
# grid, window size (0: global): as stored, other sizes that resize the positions, whole and padded windows
GRIDS = [((5, 7), 0), ((4, 9), 0), ((8, 8), 4), ((7, 10), 4), ((3, 5), 8), ((1, 1), 0)]


def random_attention(window_size: int, **options) -> RelPosAttention:
    attn = RelPosAttention(DIM, HEADS, use_rel_pos=True, input_size=STORED, window_size=window_size, **options)
    for p in attn.parameters():
        nn.init.normal_(p, std=0.3)
    return attn


def outputs_and_gradients(f, attn, x, grad) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    attn.zero_grad()
    out = f(x)
    out.backward(grad)
    return {"out": out.detach(), "x": x.grad} | {name: p.grad.clone() for name, p in attn.named_parameters()}


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize(("grid", "window_size"), GRIDS)
@pytest.mark.parametrize("chunk", [1, 60, chunked.CHUNK], ids=["row", "rows", "heads"])
@pytest.mark.parametrize("function", [chunked_attention, folded_attention])
def test_equals_published_attention(monkeypatch, function, chunk, grid, window_size, qkv_bias):
    monkeypatch.setattr(chunked, "CHUNK", chunk)
    monkeypatch.setattr("convmae_det.attention.rel_pos.attention_function", lambda *_: function)
    attn = random_attention(window_size, qkv_bias=qkv_bias).double()
    x, grad = torch.randn(2, 2, *grid, DIM, dtype=torch.float64)
    norm = nn.Identity()
    ours = outputs_and_gradients(lambda x: attn(x, norm), attn, x, grad)
    published = outputs_and_gradients(lambda x: windowed(attn, x), attn, x, grad)
    for name, expected in published.items():
        torch.testing.assert_close(
            ours[name], expected, rtol=1e-10, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("window_size", [0, 4])
def test_bfloat16_is_near(window_size):
    attn = random_attention(window_size)
    x, grad = torch.randn(2, 2, 7, 10, DIM)
    exact = outputs_and_gradients(lambda x: windowed(attn, x), attn, x, grad)
    with torch.autocast("cpu", torch.bfloat16):
        low = outputs_and_gradients(lambda x: attn(x, nn.Identity()), attn, x, grad.bfloat16())
    assert low["out"].dtype == torch.bfloat16
    for name, expected in exact.items():
        assert relative_error(low[name].float(), expected) < 0.05, name


def test_keeps_only_the_projected_tokens():
    attn, kept = random_attention(4), {}
    qkv = torch.randn(1, 7, 10, 3 * DIM, requires_grad=True)
    tables = [torch.randn(4, 4, DIM // HEADS, requires_grad=True) for _ in "hw"]

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        chunked_attention(qkv, attn.qkv.bias, *tables, HEADS, (4, 4))
    assert sum(kept.values()) == qkv.numel() + attn.qkv.bias.numel() + sum(t.numel() for t in tables)


def test_each_precision_has_its_function():
    qkv = torch.empty(0)
    assert attention_function(qkv, True, 12, (64, 64)) is chunked_attention
    assert attention_function(qkv.bfloat16(), True, 12, (64, 64)) is folded_attention
    assert attention_function(qkv, False, 12, (64, 64)) is folded_attention


def test_small_windows_are_taken_together():
    qkv = torch.empty(0)
    assert attention_function(qkv, True, 12, (14, 14)) is chunked_attention  # the published detectors' windows
    assert attention_function(qkv, True, 4, (8, 8)) is folded_attention


@pytest.mark.parametrize("use_rel_pos", [True, False])
def test_backbone_equals_published_backbone(use_rel_pos):
    config = dict(img_size=64, embed_dim=(8, 16, 24), depth=(1, 2, 3), num_heads=4, window_size=3)
    net = ConvViT(**config, use_rel_pos=use_rel_pos, rel_pos_zero_init=False, window_block_indexes=[0, 2]).double()
    images = torch.randn(2, 3, 64, 112, dtype=torch.float64)
    results = []
    for model in (net, DenseConvViT(net)):
        model.zero_grad()
        out = model(images)["last_feat"]
        out.sin().sum().backward()
        results.append([out, *(p.grad.clone() for p in net.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
