"""Shared-out weights in one process: every kind of model, optimizer groups, and folders that cannot be written."""

import resource

import pytest
import torch
from sharded import needs_sharding
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule

from pretrain.common.distributed import World
from pretrain.common.sharded_files import load_whole, save_sharded
from pretrain.common.sharding import full_tensor, full_weights, whole_weights
from pretrain.models import build_model
from pretrain.models.autoencoder import ReconstructionLoss
from pretrain.models.layers import Block, ConvBlock
from pretrain.models.mixture import MIMIC, MixtureLoss, add_target_heads
from pretrain.training.classification import ClassificationLoss
from pretrain.training.sharding import shard_blocks


@pytest.fixture(scope="module", autouse=True)
def world():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def mixture():
    model = build_model("convmaev2_convvit_tiny_patch8_32", act_checkpoint=True)
    add_target_heads(model, {"rgb": None, "other": 6}, mimic_dim=6)

    def teacher(imgs, grid_size):
        return imgs.mean(dim=(1, 2, 3)).view(-1, 1, 1).expand(-1, grid_size[0] * grid_size[1], 6) + torch.arange(6)

    loss = MixtureLoss(model, {"rgb": 1.0, "other": 0.5, MIMIC: 1.0}, {"other": teacher, MIMIC: teacher})
    return loss, (torch.rand(2, 3, 32, 32), 0.75, torch.rand(2, 16))


def clips():
    model = build_model("videoconvmae_convvit_tiny_patch16", img_size=32, num_frames=4)
    return ReconstructionLoss(model), (torch.rand(2, 3, 4, 32, 32), 0.75, torch.rand(2, 4))


def classifier():
    model = build_model("convvit_tiny_patch8_32", num_classes=3)
    return ClassificationLoss(model, nn.CrossEntropyLoss()), (torch.rand(2, 3, 32, 32), torch.tensor([0, 2]))


def gradients(loss, inputs):
    output = loss(*inputs)
    (output[0] if isinstance(output, tuple) else output).backward()
    return {name: full_tensor(p.grad) for name, p in loss.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", [mixture, clips, classifier])
def test_gradients_are_those_of_the_plain_model(make):
    loss, inputs = make()
    expected, names = gradients(loss, inputs), list(loss.state_dict())
    optimizer = torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=0.0)
    optimizer.zero_grad()
    shard_blocks(loss, optimizer, torch.device("cpu"))
    assert all(isinstance(module, FSDPModule) for module in loss.modules() if isinstance(module, Block | ConvBlock))
    found = gradients(loss, inputs)
    assert list(full_weights(loss)) == names and found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@needs_sharding
def test_weights_are_whole_within_and_slices_without():
    loss, inputs = classifier()
    plain = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.1)
    shard_blocks(loss, optimizer, torch.device("cpu"))
    gradients(loss, inputs)
    optimizer.step()
    stepped = full_weights(loss)
    assert any(not torch.equal(stepped[name], plain[name]) for name in plain)
    with whole_weights(loss), torch.no_grad():
        assert {type(p) for p in loss.parameters()} == {nn.Parameter}
        logits = loss.model.eval()(inputs[0])
        assert all(torch.equal(full_weights(loss)[name], stepped[name]) for name in stepped)
    assert all(hasattr(p, "to_local") for p in loss.parameters())
    plain_loss, _ = classifier()
    plain_loss.load_state_dict(stepped)
    torch.testing.assert_close(logits, plain_loss.model.eval()(inputs[0]), rtol=1e-5, atol=1e-6)


def state_of(loss, optimizer):
    return {"model": loss.state_dict(), "optimizer": optimizer.state_dict(), "step": 3}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    loss, inputs = classifier()
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.1)
    gradients(loss, inputs)
    optimizer.step()
    state = state_of(loss, optimizer)
    path = tmp_path / "checkpoint-00000003"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # stands for a full disk
    try:
        with pytest.raises(OSError, match=rf"^{path} could not be written: File too large$"):
            save_sharded(state, path, World())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    save_sharded(state, path, World())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    stored = load_whole(path)
    assert stored["step"] == 3 and stored["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    for name, tensor in state["model"].items():
        assert torch.equal(stored["model"][name], tensor)
    for index, moments in state["optimizer"]["state"].items():
        assert all(torch.equal(stored["optimizer"]["state"][index][name], moment) for name, moment in moments.items())
