"""Averaged weights follow the weights as written down, and go on where they were."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lazyrun.engine.checkpoint import RunCheckpointer
from lazyrun.engine.ema import WeightAverage


@pytest.fixture
def make_average(tmp_path):
    def make(model: nn.Module, decay: float, max_iter: int = 100) -> WeightAverage:
        average = WeightAverage(model, decay, RunCheckpointer(model, str(tmp_path)))
        average.trainer = SimpleNamespace(iter=0, max_iter=max_iter)
        return average

    return make


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def steps(average: WeightAverage, trained: nn.Module, iterations: range) -> None:
    """Random walks of weights and running statistics, each a step of its own seed."""
    for i in iterations:
        generator = torch.Generator().manual_seed(i)
        with torch.no_grad():
            for tensor in trained.state_dict().values():
                if tensor.is_floating_point():
                    tensor += torch.randn(tensor.shape, generator=generator)
                else:
                    tensor += 1
        average.trainer.iter = i
        average.after_step()


def test_without_decay_the_average_is_the_weights(make_average):
    trained = model()
    average = make_average(trained, 0.0)
    average.before_train()
    steps(average, trained, range(3))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(average.model.state_dict()[name], tensor), name


def test_average_is_the_recurrence(make_average):
    trained = model()
    average = make_average(trained, 0.6)
    average.before_train()
    expected = trained[0].weight.detach().clone()
    for i in range(6):
        steps(average, trained, range(i, i + 1))
        decay = min(0.6, 1 - (i + 1) ** (-2 / 3))
        expected = decay * expected + (1 - decay) * trained[0].weight.detach()
    torch.testing.assert_close(average.model[0].weight, expected)
    assert average.model[1].num_batches_tracked == 6 and not average.model.training


def test_goes_on_where_it_was(make_average):
    trained = model()
    whole = make_average(trained, 0.9)
    whole.before_train()
    steps(whole, trained, range(3))
    weights, state = {k: v.clone() for k, v in trained.state_dict().items()}, whole.state_dict()
    state = {"model": {k: v.clone() for k, v in state["model"].items()}}
    steps(whole, trained, range(3, 6))

    trained = model()
    trained.load_state_dict(weights)
    resumed = make_average(trained, 0.9)
    resumed.load_state_dict(state)
    resumed.before_train()
    steps(resumed, trained, range(3, 6))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_the_last_step_writes_a_file_of_its_own(make_average, tmp_path):
    trained = model()
    average = make_average(trained, 0.5, max_iter=2)
    average.before_train()
    steps(average, trained, range(2))
    content = torch.load(tmp_path / "model_final_ema.pth", weights_only=True)
    assert content["iteration"] == 1 and not (tmp_path / "last_checkpoint").exists()
    assert torch.equal(content["model"]["0.weight"], average.model[0].weight)
