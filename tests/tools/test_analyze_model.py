"""Parameters and FLOPs."""

import runpy

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from fvcore.nn import FlopCountAnalysis
from parity import REPO
from shapes import CONFIG, SMALL
from torch import nn

from convmae_det import ConvViT
from convmae_det.attention.table import RelPosBiasTable, TableAttention
from convmae_det.baselines import DenseConvViT
from convmae_det.flops import attention_flops
from lazyrun.config.loading import load_config


class Attend(nn.Module):
    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class TableAttend(nn.Module):
    def __init__(self, dim, heads, size):
        super().__init__()
        self.table = RelPosBiasTable(size, heads)
        self.attention = TableAttention(dim, heads, self.table)

    def forward(self, x):
        return self.attention(x, nn.Identity())


def test_fused_attention_counts_both_products():
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    analysis = FlopCountAnalysis(Attend(), (q, k, v))
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention_flops)
    assert analysis.total() == 2 * 3 * (5 * 7 * 8 + 5 * 7 * 4)


def test_backbone_count_is_that_of_the_formula():
    """One global block on 4×4 tokens: MLP, projections, attention, relative positions, patch embeddings, norms."""
    C, N = 16, 16
    net = ConvViT(64, embed_dim=(4, 8, C), depth=(0, 0, 1), num_heads=2, use_rel_pos=True, pretrain_img_size=64)
    analysis = FlopCountAnalysis(DenseConvViT(net), torch.randn(1, 3, 64, 64))
    counts = analysis.unsupported_ops_warnings(False).tracer_warnings("none").by_operator()
    counts = {name: counts[name] for name in ("linear", "matmul", "einsum", "conv")}
    assert counts == {
        "linear": N * C * C + N * C * (3 + 1 + 4 + 4) * C,
        "matmul": 2 * N * N * C,
        "einsum": N * C * (4 + 4),
        "conv": 16 * 16 * 3 * 16 * 4 + 8 * 8 * 4 * 4 * 8 + 4 * 4 * 8 * 4 * C,
    }


def test_prints_parameters_and_flops_by_module(monkeypatch, capsys):
    monkeypatch.chdir(REPO)
    overrides = [o for o in SMALL if o.startswith("model.")]
    monkeypatch.setattr("sys.argv", ["analyze_model.py", "--config-file", CONFIG, "--size", "64", "--", *overrides])
    runpy.run_path("tools/analyze_model.py", run_name="__main__")
    out = capsys.readouterr().out
    model = instantiate(load_config(CONFIG, ["data.image_size=64", *overrides]).model)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters" in out
    for module in ("backbone", "proposal_generator", "roi_heads"):
        assert module in out


@pytest.mark.parametrize("size", [70])
def test_size_that_does_not_fit(monkeypatch, size):
    monkeypatch.chdir(REPO)
    monkeypatch.setattr("sys.argv", ["analyze_model.py", "--config-file", CONFIG, "--size", str(size)])
    with pytest.raises(SystemExit, match="cannot be built for 70 pixels"):
        runpy.run_path("tools/analyze_model.py", run_name="__main__")


def test_attention_with_a_table_counts_both_products():
    H, W, C = 4, 4, 8
    analysis = FlopCountAnalysis(TableAttend(C, 2, size=4), torch.randn(1, H, W, C))
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention_flops)
    with torch.no_grad():
        counts = analysis.unsupported_ops_warnings(False).tracer_warnings("none").by_operator()
    assert counts["scaled_dot_product_attention"] == 2 * (H * W) ** 2 * C
    assert counts["linear"] == 4 * H * W * C**2
