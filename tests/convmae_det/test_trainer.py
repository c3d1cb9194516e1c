"""One training step, in every precision a CPU has."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from convmae_det.trainer import Trainer


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.linear(batch)
        self.dtype = out.dtype
        return {"loss_a": out.float().square().mean(), "loss_b": out.float().abs().mean()}


def make_trainer(batch: torch.Tensor, amp_dtype: torch.dtype | None = None) -> Trainer:
    model = Loss()
    return Trainer(model, [batch], torch.optim.SGD(model.parameters(), lr=0.1), amp_dtype)


def step(trainer: Trainer) -> None:
    with EventStorage() as trainer.storage:
        trainer.run_step()


@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16])
def test_step_is_that_of_plain_pytorch(amp_dtype):
    trainer = make_trainer(torch.randn(8, 4), amp_dtype)
    expected = Loss()
    expected.load_state_dict(trainer.model.state_dict())
    step(trainer)
    assert trainer.model.dtype == (amp_dtype or torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp_dtype is not None):
        losses = expected(trainer.data_loader[0])
    sum(losses.values()).backward()
    torch.optim.SGD(expected.parameters(), lr=0.1).step()
    torch.testing.assert_close(trainer.model.linear.weight, expected.linear.weight)


def test_a_loss_that_is_not_finite_stops_before_the_weights():
    trainer = make_trainer(torch.full((8, 4), torch.nan))
    before = trainer.model.linear.weight.clone()
    with pytest.raises(SystemExit, match=r"Loss became infinite or NaN at iteration=0! .* continue .* with --resume"):
        step(trainer)
    assert torch.equal(trainer.model.linear.weight, before)


def test_state_without_loss_scaling_loads_into_a_run_with_it():
    state = make_trainer(torch.randn(8, 4)).state_dict()
    scaled = make_trainer(torch.randn(8, 4))
    scaled.grad_scaler = torch.amp.GradScaler("cpu", enabled=True)
    scaled.load_state_dict(state)
    assert scaled.grad_scaler.get_scale() == 65536.0
