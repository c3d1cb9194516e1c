"""The memory-saving linear layers against the plain ones."""

import pytest
import torch
from torch import nn

from pretrain.models.layers import PointwiseConv
from pretrain.models.recompute import norm_linear, norm_mlp


def gradients(f, x, *modules):
    x = x.clone().requires_grad_()
    for module in modules:
        module.zero_grad()
    out = f(x, *modules)
    out.square().sum().backward()
    return [out, x.grad, *(p.grad.clone() for module in modules for p in module.parameters())]


def plain(x, *modules):
    for module in modules:
        x = module(x)
    return x


def modules_of(fused, layer=nn.Linear, **options):
    """LayerNorm, and what follows it in the fused function."""
    linear = layer(12, 20, **options)
    return (nn.LayerNorm(12, eps=1e-3), linear) + ((nn.GELU(), layer(20, 12)) if fused is norm_mlp else ())


@pytest.mark.parametrize(("layer", "options"), [(nn.Linear, {}), (nn.Linear, {"bias": False}), (PointwiseConv, {})])
@pytest.mark.parametrize("shape", [(3, 12), (2, 5, 12), (2, 3, 4, 12)])
@pytest.mark.parametrize("fused", [norm_linear, norm_mlp])
@pytest.mark.parametrize("chunk", [1, 50, 2**20], ids=["row", "rows", "all"])
def test_equals_plain_layers(monkeypatch, chunk, fused, shape, layer, options):
    monkeypatch.setattr("pretrain.models.recompute.CHUNK", chunk)
    x = torch.randn(shape, dtype=torch.float64)
    modules = [module.double() for module in modules_of(fused, layer, **options)]
    for a, b in zip(gradients(fused, x, *modules), gradients(plain, x, *modules), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("frozen", [1, 3])
def test_frozen_layers_get_no_gradient(frozen):
    modules = modules_of(norm_mlp)
    modules[frozen].requires_grad_(False)
    norm_mlp(torch.randn(4, 12, requires_grad=True), *modules).sum().backward()
    assert [p.grad is None for m in modules for p in m.parameters()] == [
        not p.requires_grad for m in modules for p in m.parameters()
    ]


@pytest.mark.parametrize("fused", [norm_linear, norm_mlp])
def test_autocast_runs_in_low_precision(fused):
    x, modules = torch.randn(8, 12), modules_of(fused)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = gradients(fused, x, *modules)
        reference = gradients(plain, x, *modules)
    assert ours[0].dtype == torch.bfloat16
    for a, b in zip(ours, reference, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def test_keeps_only_its_input():
    x = torch.randn(4, 256, 64, requires_grad=True)
    norm, fc1, act, fc2 = nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        norm_mlp(x, norm, fc1, act, fc2)
    tokens = 4 * 256
    weights = 64 * 256 * 2 + 64 * 2
    assert sum(kept.values()) == tokens * (64 + 256) + weights  # x and the hidden layer
