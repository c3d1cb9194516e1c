"""Fused updates are those of the plain loop, also under loss scaling and after a resume."""

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall
from omegaconf import OmegaConf
from torch import nn

from lazyrun.engine.optim import build_optimizer
from pretrain.common.errors import UserError


def make(fused: bool | None = None) -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    cfg = model_zoo.get_config("common/optim.py").AdamW
    if fused is not None:
        cfg.fused = fused
    cfg.lr = 1e-2
    before = OmegaConf.to_yaml(cfg)
    optimizer = build_optimizer(cfg, model)
    assert OmegaConf.to_yaml(cfg) == before  # written to a run's config.yaml afterwards
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5, scaler=None) -> None:
    inputs = torch.randn(steps, 6, 8, generator=torch.Generator().manual_seed(2))
    for batch in inputs:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()


def assert_same_weights(ours: nn.Module, expected: nn.Module) -> None:
    for (name, a), b in zip(ours.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_fused_by_default_equals_the_loop():
    (ours, fused), (expected, loop) = make(), make(fused=False)
    assert fused.defaults["fused"] is True and loop.defaults["fused"] is False
    assert len(fused.param_groups) == 2  # weight decay, and none for the norm
    train(ours, fused)
    train(expected, loop)
    assert_same_weights(ours, expected)


def test_a_chosen_implementation_stays():
    assert make(fused=False)[1].defaults["fused"] is False
    meta = nn.Linear(2, 2, device="meta")
    cfg = model_zoo.get_config("common/optim.py").AdamW
    assert build_optimizer(cfg, meta).defaults["fused"] is None
    cfg = model_zoo.get_config("common/optim.py").SGD
    cfg.foreach = True
    assert not build_optimizer(cfg, nn.Linear(2, 2)).defaults["fused"]


def test_numbers_out_of_range():
    cfg = model_zoo.get_config("common/optim.py").AdamW
    cfg.weight_decay = -1
    with pytest.raises(UserError, match=r"The optimizer of this config cannot be built: .*weight_decay"):
        build_optimizer(cfg, nn.Linear(2, 2))


def test_loss_scaling_is_undone_and_overflow_skips_the_step():
    (ours, fused), (expected, loop) = make(), make(fused=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    train(ours, fused, scaler=scaler)
    train(expected, loop)
    assert_same_weights(ours, expected)
    before = [p.clone() for p in ours.parameters()]
    fused.zero_grad()
    scaler.scale(ours(torch.full((1, 8), 1e30)).square().mean()).backward()
    scaler.scale(ours(torch.full((1, 8), torch.inf)).mean()).backward()
    scaler.step(fused)
    scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), before, strict=True))
    assert scaler.get_scale() == 2.0**11


@pytest.mark.parametrize("saved_as", [True, False])
def test_a_loaded_state_continues_without_choosing_how(saved_as):
    (model, saved), (expected, loop) = make(fused=saved_as), make(fused=False)
    train(model, saved, steps=3)
    ours, resumed = make()
    ours.load_state_dict(model.state_dict())
    resumed.load_state_dict(saved.state_dict())
    assert all(group["fused"] for group in resumed.param_groups)
    train(ours, resumed, steps=3)
    train(expected, loop, steps=3)
    train(expected, loop, steps=3)
    assert_same_weights(ours, expected)


def test_other_groups_of_parameters_are_not_resumed():
    _, saved = make()
    cfg = model_zoo.get_config("common/optim.py").AdamW
    cfg.params.weight_decay_norm = None
    with pytest.raises(
        UserError,
        match=r"groups of the optimizer \(2\) than this config \(1\); resume with the train\.freeze, the train\.lay",
    ):
        build_optimizer(cfg, make()[0]).load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    ("cls", "options"),
    [(torch.optim.AdamW, {"betas": (0.9, 0.99)}), (torch.optim.Adafactor, {"eps": (None, 1e-3)})],
)
def test_the_state_can_be_read_without_running_code(cls, options, tmp_path):
    """Lists of a config would be objects that torch.load refuses."""
    params = model_zoo.get_config("common/optim.py").AdamW.params
    optimizer = build_optimizer(LazyCall(cls)(params=params, lr=0.1, **options), nn.Linear(2, 2))
    torch.save(optimizer.state_dict(), tmp_path / "state.pth")
    group = torch.load(tmp_path / "state.pth", weights_only=True)["param_groups"][0]
    assert all(tuple(group[key]) == value for key, value in options.items())
