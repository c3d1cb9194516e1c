"""What of a checkpoint is cut and brought together, and a PyTorch that cannot; runs are in other tests."""

from collections import OrderedDict

import pytest
import torch
from sharded import needs_sharding
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from pretrain.common.errors import UserError
from pretrain.common.sharding import check_can_shard, sliced_as, sliced_moments, whole_content


@pytest.fixture
def linear():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield fully_shard(nn.Linear(3, 2))
    distributed.destroy_process_group()


def test_content_becomes_whole_and_keeps_its_form(linear):
    state = linear.state_dict()
    content = {"model": state, "list": [state["bias"], 3], "pair": (0.9, "x"), "plain": torch.ones(2)}
    whole = whole_content(content, kept=True)
    assert type(whole["model"]) is OrderedDict and whole["model"]._metadata == state._metadata
    assert list(whole) == list(content) and whole["pair"] == (0.9, "x") and whole["plain"] is content["plain"]
    for found, tensor in ((whole["model"]["weight"], linear.weight), (whole["list"][0], linear.bias)):
        assert type(found) is torch.Tensor and torch.equal(found, tensor.full_tensor())
    assert type(content["model"]["weight"]) is type(linear.weight.data), "the content itself is left alone"
    assert whole_content(content, kept=False)["model"]["weight"] is None


def test_whole_tensors_are_cut_as_their_parameters_are(linear):
    optimizer = torch.optim.AdamW(linear.parameters())
    state = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.rand(2, 3)}, 7: {"exp_avg": torch.rand(2)}}}
    moments = sliced_moments(state, optimizer)["state"]
    assert moments[0]["exp_avg"].placements == linear.weight.placements
    assert torch.equal(moments[0]["exp_avg"].full_tensor(), state["state"][0]["exp_avg"])
    assert moments[0]["step"] is state["state"][0]["step"] and moments[7] == state["state"][7]
    for tensor, owner in ((torch.ones(5), linear.bias), (torch.ones(2), torch.ones(2)), ("text", linear.bias)):
        assert sliced_as(tensor, owner) is tensor


@needs_sharding
def test_a_pytorch_that_cannot_is_named(monkeypatch):
    check_can_shard("--fsdp")
    monkeypatch.delattr(FSDPModule, "reset_iter_state")
    with pytest.raises(UserError, match=r"^train.fsdp needs PyTorch 2.13 or newer, and this is \d\S+; .*train.fsdp"):
        check_can_shard("train.fsdp")
