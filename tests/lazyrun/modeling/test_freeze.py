"""Frozen parts keep weights and running statistics; unknown ones are named with those there are."""

import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from lazyrun.engine.hooks import FrozenParts
from lazyrun.modeling.freeze import freeze, trunk_name
from pretrain.common.errors import UserError
from pretrain.models.trunk import ConvViTTrunk


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ConvViTTrunk(embed_dim=(4, 4, 8), depth=(1, 1, 1), num_heads=2, conv_norm_layer=nn.LayerNorm)
        self.net.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.norm = nn.BatchNorm1d(8)


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Pyramid()
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.head(self.backbone.norm(x)).square().mean()}


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_stages_and_trunk():
    model = Detector()
    everything = trainable(model)
    freeze(model, ["stage1", "backbone.norm.bias"])
    frozen = everything - trainable(model)
    assert {name.split(".")[2] for name in frozen} == {"patch_embed1", "blocks1", "bias"}
    freeze(model, "stage3")
    assert not {"backbone.net.pos_embed", "backbone.net.patch_embed4.weight"} & trainable(model)
    assert "backbone.net.patch_embed2.proj.weight" in trainable(model)
    freeze(model, "trunk")
    assert trainable(model) == {name for name in everything if not name.startswith("backbone.net.")} - {
        "backbone.norm.bias"
    }


@pytest.mark.parametrize("names", [None, []])
def test_nothing_is_frozen(names):
    model = Detector()
    assert freeze(model, names) == [] and all(p.requires_grad for p in model.parameters())


def test_unknown_part():
    with pytest.raises(UserError, match="no part 'stage4'; there are trunk, stage1, stage2, stage3, and all modules"):
        freeze(Detector(), ["stage4"])
    with pytest.raises(UserError, match="no part 'trunk'; there are 0, 1"):
        freeze(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "trunk")


def test_everything_is_refused():
    with pytest.raises(UserError, match="leaves nothing to train"):
        freeze(Detector(), ["backbone", "head"])


def test_trunk_is_found_in_every_layout():
    def nested(path: str) -> nn.Module:
        module: nn.Module = nn.Linear(1, 1)
        for name in reversed(path.split(".")):
            parent = nn.Module()
            parent.add_module(name, module)
            module = parent
        return module

    for path in ("backbone.net", "backbone.bottom_up.encoder", "backbone.bottom_up", "backbone"):
        assert trunk_name(nested(path)) == path


def test_norms_of_frozen_parts_stand_still_while_the_rest_trains():
    model = Detector()
    frozen = freeze(model, "backbone")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    trainer = SimpleTrainer(model, iter([torch.randn(4, 8) for _ in range(3)]), optimizer)
    trainer.register_hooks([FrozenParts(frozen)])
    trainer.train(0, 3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) is name.startswith("backbone."), name
