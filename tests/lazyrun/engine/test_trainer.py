"""One training step, in every precision a CPU has, over one batch or several smaller ones."""

import math
from unittest.mock import Mock

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage, get_event_storage
from shapes import CONFIG, REPO, SMALL
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lazyrun.config.loading import load_config
from lazyrun.engine.trainer import MAX_SKIPPED, Trainer
from pretrain.common.errors import UserError


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.linear(batch)
        self.dtype = out.dtype
        get_event_storage().put_scalar("images", len(batch))
        return {"loss_a": out.float().square().mean(), "loss_b": out.float().abs().mean()}


def make_trainer(*batches: torch.Tensor, amp_dtype: torch.dtype | None = None) -> Trainer:
    torch.manual_seed(1)
    model = Loss()
    return Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1), amp_dtype, len(batches))


def step(trainer: Trainer) -> None:
    with EventStorage() as trainer.storage:
        trainer.run_step()


@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16])
def test_step_is_that_of_plain_pytorch(amp_dtype):
    trainer = make_trainer(torch.randn(8, 4), amp_dtype=amp_dtype)
    expected = Loss()
    expected.load_state_dict(trainer.model.state_dict())
    step(trainer)
    assert trainer.model.dtype == (amp_dtype or torch.float32)
    with EventStorage(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp_dtype is not None):
        losses = expected(trainer.data_loader[0])
    sum(losses.values()).backward()
    torch.optim.SGD(expected.parameters(), lr=0.1).step()
    torch.testing.assert_close(trainer.model.linear.weight, expected.linear.weight)


def test_a_loss_that_is_not_finite_stops_before_the_weights():
    trainer = make_trainer(torch.full((8, 4), torch.nan))
    before = trainer.model.linear.weight.clone()
    message = r"infinite or NaN at iteration 0 \(on process 0: loss_a nan, loss_b nan\)\. .* continue .* with --resume"
    with pytest.raises(UserError, match=message):
        step(trainer)
    assert torch.equal(trainer.model.linear.weight, before)


class BadGradient(nn.Module):
    """A finite loss whose gradient is NaN for batches of zeros: the slope of the root there times 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * batch).square().sum().sqrt()}


def bad_trainer(*batches: torch.Tensor, **options) -> Trainer:
    model = BadGradient()
    trainer = Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1), **options)
    trainer.iter = 0
    return trainer


def test_a_gradient_that_is_not_finite_is_not_stepped(caplog):
    trainer = bad_trainer(torch.zeros(4), torch.ones(4))
    with EventStorage() as trainer.storage:
        trainer.run_step()
        assert torch.equal(trainer.model.weight, torch.ones(4)) and trainer.skipped_in_a_row == 1
        assert "Iteration 0: the gradient's norm is nan; the step is skipped." in caplog.text
        trainer.run_step()
        assert torch.allclose(trainer.model.weight, torch.full((4,), 0.95)) and trainer.skipped_in_a_row == 0


def test_too_many_of_them_in_a_row_end_the_run():
    trainer = bad_trainer(*[torch.zeros(4)] * MAX_SKIPPED)
    with EventStorage() as trainer.storage:
        for _ in range(MAX_SKIPPED - 1):
            trainer.run_step()
        with pytest.raises(UserError, match=r"infinite or NaN in 10 iterations in a row, up to 0; .* train.clip_grad"):
            trainer.run_step()
    assert torch.equal(trainer.model.weight, torch.ones(4))


def test_steps_that_search_the_scale_of_float16_do_not_count(caplog):
    trainer = bad_trainer(*[torch.zeros(4)] * 3)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=True)
    counts = []
    with EventStorage() as trainer.storage:
        for _ in range(3):
            trainer.run_step()
            counts.append((trainer.grad_scaler.get_scale(), trainer.skipped_in_a_row, len(caplog.records)))
    assert counts == [(2.0, 0, 0), (1.0, 0, 0), (0.5, 1, 1)]
    assert torch.equal(trainer.model.weight, torch.ones(4))


def test_a_gradient_is_clipped_to_its_norm():
    trainer = bad_trainer(torch.full((4,), 3.0), clip_grad=0.5)
    with EventStorage() as trainer.storage:
        trainer.run_step()
        assert trainer.storage.latest()["grad_norm"][0] == pytest.approx(3.0)  # four times 9 * 1 / sqrt(4 * 9)
    assert torch.allclose(trainer.model.weight, torch.full((4,), 1 - 0.1 * 0.25))


def test_detectron2_s_own_stop_is_told_the_same_way(monkeypatch):
    trainer = bad_trainer(torch.ones(4))
    monkeypatch.setattr(trainer.model, "forward", Mock(side_effect=FloatingPointError("Predicted boxes contain Inf")))
    message = r"NaN at iteration 0 \(Predicted boxes contain Inf\)\. The last checkpoint"
    with EventStorage() as trainer.storage, pytest.raises(UserError, match=message):
        trainer.run_step()


@pytest.mark.parametrize("elsewhere", [math.nan, math.inf, 1.0])
def test_every_process_stops_at_the_loss_of_any(monkeypatch, caplog, elsewhere):
    monkeypatch.setattr("lazyrun.engine.trainer.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("lazyrun.engine.trainer.distributed.all_reduce", lambda total: total.add_(elsewhere))
    trainer = make_trainer(torch.randn(8, 4))
    before = trainer.model.linear.weight.clone()
    trainer._write_metrics = Mock()  # would wait for the other process
    if math.isfinite(elsewhere):
        trainer.train(0, 1)
        assert not torch.equal(trainer.model.linear.weight, before)
        return
    with pytest.raises(UserError, match="The loss became infinite or NaN at iteration 0"):
        trainer.train(0, 1)
    assert torch.equal(trainer.model.linear.weight, before)
    (logged,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert logged.getMessage().startswith("Training stopped: The loss became infinite or NaN") and not logged.exc_info


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            UserError("Caught UserError in worker process 0.\nTraceback (most recent call last):\nx: 1.png is torn."),
            "1.png is torn.",
        ),
        (OSError("model.pth could not be written: no space"), "model.pth could not be written: no space"),
    ],
)
def test_a_mistake_in_the_middle_is_logged_without_a_traceback(caplog, error, message):
    trainer = make_trainer()
    trainer.run_step = Mock(side_effect=error)
    with pytest.raises(type(error)):
        trainer.train(0, 1)
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [f"Training stopped: {message}"]
    assert not any(r.exc_info for r in caplog.records)


def test_state_without_loss_scaling_loads_into_a_run_with_it():
    state = make_trainer(torch.randn(8, 4)).state_dict()
    scaled = make_trainer(torch.randn(8, 4))
    scaled.grad_scaler = torch.amp.GradScaler("cpu", enabled=True)
    scaled.load_state_dict(state)
    assert scaled.grad_scaler.get_scale() == 65536.0


@pytest.mark.parametrize("scaled", [False, True])
def test_small_batches_give_the_step_of_one_large_batch(scaled):
    batch = torch.randn(8, 4)
    large, small = make_trainer(batch), make_trainer(*batch.split(2))
    if scaled:
        small.grad_scaler = torch.amp.GradScaler("cpu", enabled=True)
    step(large)
    step(small)
    torch.testing.assert_close(small.model.linear.weight, large.model.linear.weight)
    ours, expected = small.storage.latest(), large.storage.latest()
    for name in ("loss_a", "loss_b", "total_loss"):
        assert ours[name][0] == pytest.approx(expected[name][0], rel=1e-6)


def test_scalars_of_the_model_are_averaged():
    trainer = make_trainer(torch.randn(1, 4), torch.randn(4, 4), torch.randn(4, 4))
    step(trainer)
    assert trainer.storage.latest()["images"] == (3.0, 0)


def test_one_micro_batch_that_is_not_finite_stops_before_the_weights():
    trainer = make_trainer(torch.randn(2, 4), torch.full((2, 4), math.inf), torch.randn(2, 4))
    before = trainer.model.linear.weight.clone()
    with pytest.raises(UserError, match="The loss became infinite or NaN at iteration 0"):
        step(trainer)
    assert torch.equal(trainer.model.linear.weight, before)


def test_processes_exchange_gradients_once_a_step(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        trainer = make_trainer(*torch.randn(3, 2, 4))
        trainer.model = DistributedDataParallel(trainer.model)
        exchanges = []

        def count(_, bucket):
            exchanges.append(bucket)
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        trainer.model.register_comm_hook(None, count)
        for steps in (1, 2):
            trainer._data_loader_iter_obj = iter(trainer.data_loader)
            step(trainer)
            assert len(exchanges) == steps
    finally:
        distributed.destroy_process_group()


def make_sample(objects: int) -> dict:
    corners = torch.rand(objects, 2) * 20
    instances = Instances((64, 64))
    instances.gt_boxes = Boxes(torch.cat([corners, corners + 30], dim=1))
    instances.gt_classes = torch.arange(objects)
    instances.gt_masks = BitMasks(torch.rand(objects, 64, 64) > 0.5)
    return {"image": torch.rand(3, 64, 64) * 255, "instances": instances}


def test_gradient_of_the_detector_is_the_average_over_micro_batches():
    model = instantiate(load_config(str(REPO / CONFIG), SMALL).model).train()
    batches = [[make_sample(1)], [make_sample(3)]]
    trainer = Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.0), grad_accum_steps=2)
    torch.manual_seed(5)  # proposals are sampled
    step(trainer)
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    losses, expected = [], {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    torch.manual_seed(5)
    for batch in batches:
        model.zero_grad()
        with EventStorage():
            losses.append(sum(model(batch).values()))
        losses[-1].backward()
        for name, p in model.named_parameters():
            expected[name] += p.grad / 2
    assert trainer.storage.latest()["total_loss"][0] == pytest.approx(sum(losses).item() / 2, rel=1e-5)
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
