"""The norms that two processes share, on CPUs through gloo."""

import preloaded
import pytest
import torch
from shapes import environment
from torch import nn
from two_processes import EMPTY, SHAPES, make_regions

from lazyrun.modeling.norms import grid_batch_norm


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("gloo")
    commands = [["tests/support/two_processes.py", str(rank), str(folder)] for rank in range(2)]
    for done in preloaded.run_together(commands, [environment(folder)] * 2):
        assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]


def test_plain_sync_batch_norm_counts_every_value_the_same(processes):
    torch.manual_seed(0)
    maps, weights = ([torch.randn(shape) for shape in SHAPES] for _ in range(2))
    # (B, C, H, W) of all processes -> (1, C, 1, all values)
    x, weight = (torch.cat([t.transpose(0, 1).flatten(1) for t in ts], 1)[None, :, None] for ts in (maps, weights))
    norm = nn.BatchNorm2d(3)
    expected = norm(x.requires_grad_())
    (expected * weight).sum().backward()
    for name, reference in (("out", expected), ("grad", x.grad)):
        actual = torch.cat([p["norm"][name].transpose(0, 1).flatten(1) for p in processes], 1)[None, :, None]
        torch.testing.assert_close(actual, reference.detach(), atol=1e-5, rtol=1e-5)
    for process in processes:
        torch.testing.assert_close(process["norm"]["running_mean"], norm.running_mean)
        torch.testing.assert_close(process["norm"]["running_var"], norm.running_var)


def test_heads_in_bfloat16_have_statistics_in_float32(processes):
    norm = nn.BatchNorm2d(3)
    expected = norm(torch.cat(make_regions()).float())
    actual = torch.cat([p["head_norm"]["out"] for p in processes])
    assert actual.dtype is torch.bfloat16
    torch.testing.assert_close(actual.float(), expected.detach(), atol=0.02, rtol=0.01)
    for statistics in (p["head_norm"] for p in processes):
        torch.testing.assert_close(statistics["running_mean"], norm.running_mean)
        torch.testing.assert_close(statistics["running_var"], norm.running_var)
        assert torch.equal(statistics["later_mean"], statistics["running_mean"])
        assert torch.equal(statistics["later_var"], statistics["running_var"])


def test_batch_norm_of_channels_last_grids():
    norm, expected = grid_batch_norm(3), nn.BatchNorm2d(3)
    x = torch.randn(2, 4, 5, 3)
    torch.testing.assert_close(norm(x), expected(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    torch.testing.assert_close(norm.running_var, expected.running_var)


def test_a_head_without_input_on_one_process(processes):
    full, empty = (processes[rank]["detector"] for rank in (1 - EMPTY, EMPTY))
    assert full["mask_head_inputs"].item() > 0 and empty["mask_head_inputs"].item() == 0
    initial = {"running_mean": 0.0, "running_var": 1.0}
    for name, value in full.items():
        assert value.isfinite().all(), name
        if name.startswith("grad.") or "running" in name:
            assert torch.equal(value, empty[name]), name
        if "running" in name:
            assert (value != initial[name.rpartition(".")[2]]).any(), name
    assert empty["loss"].isfinite()
