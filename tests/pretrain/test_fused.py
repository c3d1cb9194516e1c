"""The memory-saving linear layers against the plain ones."""

import pytest
import torch
from torch import nn

from pretrain.fused import gelu_linear, norm_linear
from pretrain.layers import PointwiseConv


def gradients(f, x, inner, linear):
    x = x.clone().requires_grad_()
    for module in (inner, linear):
        module.zero_grad()
    out = f(x, inner, linear)
    out.square().sum().backward()
    return [out, x.grad, *(p.grad.clone() for module in (inner, linear) for p in module.parameters())]


def plain(x, inner, linear):
    return linear(inner(x))


@pytest.mark.parametrize("linear", [nn.Linear(12, 20), nn.Linear(12, 20, bias=False), PointwiseConv(12, 20)])
@pytest.mark.parametrize("shape", [(3, 12), (2, 5, 12), (2, 3, 4, 12)])
@pytest.mark.parametrize(("fused", "inner"), [(norm_linear, nn.LayerNorm(12, eps=1e-3)), (gelu_linear, nn.GELU())])
def test_equals_plain_layers(fused, inner, shape, linear):
    x = torch.randn(shape, dtype=torch.float64)
    inner, linear = inner.double(), linear.double()
    for a, b in zip(gradients(fused, x, inner, linear), gradients(plain, x, inner, linear), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("fused", "inner"), [(norm_linear, nn.LayerNorm(64)), (gelu_linear, nn.GELU())])
def test_autocast_runs_in_low_precision(fused, inner):
    x, linear = torch.randn(8, 64), nn.Linear(64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = gradients(fused, x, inner, linear)
        reference = gradients(plain, x, inner, linear)
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
        gelu_linear(norm_linear(x, norm, fc1), act, fc2)
    tokens = 4 * 256
    weights = 64 * 256 * 2 + 64 * 2
    assert sum(kept.values()) == tokens * (64 + 2 + 256) + weights  # x, mean and rstd, the hidden layer
