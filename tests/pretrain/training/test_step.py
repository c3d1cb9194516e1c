"""What a non-finite loss or gradient does, and does not do."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain.common.distributed import World
from pretrain.common.errors import NonFiniteError
from pretrain.training.classification import ClassificationLoss
from pretrain.training.linear_probe import WorldBatchNorm1d
from pretrain.training.precision import Precision
from pretrain.training.step import Stepper

CPU = torch.device("cpu")
NAN = float("nan")


class Model(nn.Module):
    """A loss that fails where it is told to, like an overflowing decoder."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.fp32_decoder = False
        self.fails = lambda: False

    def forward(self, x):
        loss = F.linear(x, self.weight)
        return loss * NAN if self.fails() else loss


def stepper(model, amp="bf16", **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Stepper(model, optimizer, Precision(amp, CPU, model), World(), **kwargs)


def autocast_dtype():
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def test_accumulated_gradient_is_that_of_the_mean_loss():
    model = Model()
    step = stepper(model, "off").step([(torch.full((3,), 1.0),), (torch.full((3,), 3.0),)])
    assert step.loss == pytest.approx(6.0)
    assert step.grad_norm == pytest.approx(2 * 3**0.5)
    torch.testing.assert_close(model.weight.data, torch.full((3,), 0.8))


def test_losses_that_the_loss_is_made_of():
    """Averaged over micro-batches like their sum, and none of a skipped step."""

    class Sum(Model):
        def forward(self, x):
            loss = super().forward(x)
            return loss, torch.stack([loss.detach(), x.sum()])

    model = Sum()
    s = stepper(model, "off")
    step = s.step([(torch.full((3,), 1.0),), (torch.full((3,), 3.0),)])
    assert step.parts == pytest.approx([6.0, 6.0]) and step.loss == pytest.approx(6.0)
    torch.testing.assert_close(model.weight.data, torch.full((3,), 0.8))
    assert s.step([(torch.full((3,), NAN),)]).parts == ()


def test_clipping():
    model = Model()
    stepper(model, "off", clip_grad=1.0).step([(torch.full((3,), 4.0),)])
    torch.testing.assert_close(model.weight.data, torch.full((3,), 1 - 0.1 / 3**0.5))


def test_precision_is_raised_and_stays():
    model = Model()
    model.fails = lambda: autocast_dtype() == torch.bfloat16
    s = stepper(model)
    assert str(s.precision) == "bf16"
    assert s.step([(torch.ones(3),)]).loss == pytest.approx(3.0)
    assert str(s.precision) == "fp32"
    torch.testing.assert_close(model.weight.data, torch.full((3,), 0.9))


def test_decoder_is_raised_first():
    model = Model()
    model.fails = lambda: not model.fp32_decoder
    s = stepper(model)
    assert s.step([(torch.ones(3),)]).loss is not None
    assert str(s.precision) == "bf16 with an fp32 decoder"
    restored = stepper(Model())
    restored.load_state_dict(s.state_dict())
    assert restored.precision.model.fp32_decoder


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_bad_images_are_skipped_and_never_reach_the_weights(value, caplog):
    model = Model()
    s = stepper(model)
    with caplog.at_level(logging.WARNING):
        assert s.step([(torch.full((3,), value),)]).loss is None
    assert torch.equal(model.weight.data, torch.ones(3))
    assert model.weight.grad is None
    assert str(s.precision) == "bf16"  # the images were at fault, not the precision
    assert "trying again in fp32" in caplog.text and "Step skipped (1 in a row)" in caplog.text
    assert s.step([(torch.ones(3),)]).loss == pytest.approx(3.0)
    assert s.failures == 0


def test_non_finite_gradient_of_a_finite_loss():
    model = Model()
    model.weight.register_hook(lambda g: g * NAN)
    assert stepper(model, "off").step([(torch.ones(3),)]).loss is None
    assert torch.equal(model.weight.data, torch.ones(3))


def test_repeated_failure_stops_with_the_facts():
    model = Model()
    model.fails = lambda: True
    s = stepper(model, max_failures=2)
    s.step([(torch.ones(3),)])
    with pytest.raises(NonFiniteError, match="2 steps in a row were not finite even in fp32"):
        s.step([(torch.ones(3),)])
    assert torch.equal(model.weight.data, torch.ones(3))


def test_fp16_lowers_the_loss_scale_first():
    model = Model()
    s = stepper(model, "fp16")
    scale = s.precision.scaler.get_scale()
    assert scale > torch.finfo(torch.float16).max  # so the first backward pass overflows
    assert s.step([(torch.ones(3),)]).loss == pytest.approx(3.0)
    assert s.precision.scaler.get_scale() < scale
    assert str(s.precision) == "fp16"


def test_fp16_gradient_that_no_loss_scale_helps():
    model = Model()
    gradient = torch.full((3,), 1e25)  # finite, but its norm is not
    model.weight.register_hook(lambda g: gradient * 65536)
    assert stepper(model, "fp16").step([(torch.ones(3),)]).loss is None
    assert torch.equal(model.weight.data, torch.ones(3))


def test_bad_images_do_not_reach_running_statistics():
    torch.manual_seed(0)
    norm = WorldBatchNorm1d(3, World())
    model = nn.Sequential(norm, nn.Linear(3, 1), nn.Flatten(0))
    loss = ClassificationLoss(model, lambda x, y: (x - y).square().mean())
    s = Stepper(loss, torch.optim.SGD(model.parameters(), lr=0.1), Precision("bf16", CPU, model), World())
    x, y = torch.randn(8, 3), torch.randn(8)
    s.step([(x, y)])
    before = {name: t.clone() for name, t in norm.state_dict().items()}
    assert s.step([(x, y), (x * NAN, y)]).loss is None  # tried in two precisions
    for name, t in norm.state_dict().items():
        assert torch.equal(t, before[name]), name
    assert s.step([(x, y)]).loss is not None and norm.num_batches_tracked == 2


def test_unknown_precision():
    with pytest.raises(ValueError, match="--amp must be one of bf16, fp16, off, got 'fp8'"):
        Precision("fp8", CPU, Model())
