"""A model of every family that shares out its weights, in one process: gradients, and evaluations before a step."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from sharded import needs_sharding
from tiny_models import FAMILIES, tiny_config
from torch import distributed
from torch.distributed.tensor import DTensor

from lazyrun.benchmarks.synthetic import synthetic_batch
from lazyrun.engine.checkpoint import RunCheckpointer
from lazyrun.engine.sharding import blocks_of, shard_model
from lazyrun.modeling.build import build_model
from lazyrun.modeling.freeze import freeze
from pretrain.common.sharding import full_tensor, whole_weights

pytestmark = needs_sharding


@pytest.fixture(scope="module", autouse=True)
def world():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def batch_for(model):
    if hasattr(model, "roi_heads"):
        return synthetic_batch(2, 64, model.roi_heads.num_classes)
    return [{"image": torch.rand(3, 64, 64) * 255, "sem_seg": torch.randint(0, 3, (64, 64))} for _ in range(2)]


def gradients(model, batch):
    torch.manual_seed(1)  # proposals are sampled, and paths dropped
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    return {name: full_tensor(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("family", "frozen"), [*((family, None) for family in FAMILIES), ("demo", "trunk")])
def test_gradients_are_those_of_the_plain_model(family, frozen, tmp_path):
    model = build_model(tiny_config(family)).train()
    freeze(model, frozen)
    batch = batch_for(model)
    plain, expected = {name: t.clone() for name, t in model.state_dict().items()}, gradients(model, batch)
    buffers = {name: t.clone() for name, t in model.state_dict().items()}
    model.load_state_dict(plain)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    optimizer.zero_grad()
    shard_model(model, optimizer)
    assert len(blocks_of(model.backbone)) > 1 and all(isinstance(p, DTensor) for p in model.parameters())

    with whole_weights(model), torch.no_grad():
        model.eval().backbone(torch.rand(1, 3, 64, 64))  # a part of the model comes first, as with augmented images
    found = gradients(model.train(), batch)
    assert found.keys() >= expected.keys()
    assert not any(found[name].any() for name in found.keys() - expected.keys())  # what the model does not use
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max().item(), msg=name)

    RunCheckpointer(model, str(tmp_path)).save_weights("model")
    stored = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    assert list(stored) == list(plain) and all(torch.equal(stored[name], t) for name, t in buffers.items())
