"""The best weights stay the best ones across a resume, and an evaluation that was stopped is done again."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils.events import EventStorage
from torch import nn

from lazyrun.engine.checkpoint import RunCheckpointer
from lazyrun.engine.hooks import BestCheckpointer, FinishRun, SavedEvalHook, SaveOnSigterm
from lazyrun.engine.trainer import Trainer


def evaluate(hook: BestCheckpointer, storage: EventStorage, iteration: int, value: float) -> None:
    storage.iter = iteration
    storage.put_scalar("bbox/AP", value)
    hook.after_step()


@pytest.fixture
def make_hook(tmp_path):
    def make(storage: EventStorage) -> BestCheckpointer:
        hook = BestCheckpointer(RunCheckpointer(nn.Linear(1, 1), str(tmp_path)), "bbox/AP")
        hook.trainer = SimpleNamespace(storage=storage)
        return hook

    return make


def saved(tmp_path) -> tuple[int, float]:
    content = torch.load(tmp_path / "model_best.pth", weights_only=True)
    return content["iteration"], content["value"]


def test_keeps_the_best(make_hook, tmp_path):
    with EventStorage() as storage:
        hook = make_hook(storage)
        hook.after_step()  # nothing evaluated yet
        assert not (tmp_path / "model_best.pth").exists()
        for iteration, value in ((4, float("nan")), (9, 10.0), (14, 30.0), (19, 20.0)):
            evaluate(hook, storage, iteration, value)
    assert saved(tmp_path) == (14, 30.0)

    with EventStorage(20) as storage:
        resumed = make_hook(storage)
        resumed.load_state_dict(hook.state_dict())
        evaluate(resumed, storage, 24, 25.0)
        assert saved(tmp_path) == (14, 30.0)
        evaluate(resumed, storage, 29, 31.0)
    assert saved(tmp_path) == (29, 31.0)


class Squares(nn.Linear):
    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": super().forward(batch).square().mean()}


def train(folder, evaluate, max_iter: int = 8, resume: bool = False, last: bool = False) -> list[int]:
    """A run that evaluates every 2 iterations and saves every 4; returns the iterations it trained."""
    torch.manual_seed(0)
    model, trained = Squares(2, 1), []
    model.register_forward_hook(lambda *_: trained.append(trainer.iter))
    trainer = Trainer(model, [torch.ones(1, 2)] * max_iter, torch.optim.SGD(model.parameters(), lr=0.1))
    checkpointer = RunCheckpointer(model, str(folder), trainer=trainer)
    sigterm = SaveOnSigterm(checkpointer)

    def results() -> dict:
        return {"bbox": {"AP": evaluate(trainer.storage.iter)}}

    trainer.register_hooks(
        [
            sigterm,
            SavedEvalHook(2, results, sigterm, checkpoint_period=4),
            BestCheckpointer(checkpointer, "bbox/AP"),
            PeriodicCheckpointer(checkpointer, 4),
            *([FinishRun(checkpointer, None)] if last else []),
        ]
    )
    start = 0
    if resume:
        checkpointer.load(checkpointer.get_checkpoint_file())
        start = trainer.iter + 1
    trainer.train(start, max_iter)
    return trained


@pytest.mark.parametrize(("stop_at", "last_checkpoint"), [(1, "model_before_evaluation.pth"), (3, "model_0000003.pth")])
@pytest.mark.parametrize("how", ["terminated", "failed"])
def test_a_run_stopped_in_an_evaluation_goes_on_with_that_evaluation(tmp_path, stop_at, last_checkpoint, how):
    evaluated = []

    def stopped(iteration: int) -> float:
        if iteration == stop_at:
            if how == "failed":
                raise RuntimeError("out of memory")
            os.kill(os.getpid(), signal.SIGTERM)
        evaluated.append(iteration)
        return 5.0

    def resumed(iteration: int) -> float:
        evaluated.append(iteration)
        return 50.0 if iteration == stop_at else 20.0

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit if how == "terminated" else RuntimeError) as stop:
        train(tmp_path, stopped)
    assert how == "failed" or stop.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "last_checkpoint").read_text() == last_checkpoint
    assert train(tmp_path, resumed, resume=True) == list(range(stop_at + 1, 8))
    assert evaluated == [1, 3, 5, 8]  # the last one follows the last iteration
    assert saved(tmp_path) == (stop_at, 50.0)


def test_a_signal_while_the_checkpoint_before_an_evaluation_is_written_ends_the_run_there(tmp_path, monkeypatch):
    evaluated, save = [], RunCheckpointer.save

    def interrupted(checkpointer, name, **extra):
        os.kill(os.getpid(), signal.SIGTERM)
        save(checkpointer, name, **extra)

    monkeypatch.setattr(RunCheckpointer, "save", interrupted)
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, lambda i: evaluated.append(i) or 1.0)
    assert stop.value.code == 128 + signal.SIGTERM
    assert evaluated == []
    assert (tmp_path / "last_checkpoint").read_text() == "model_before_evaluation.pth"
    monkeypatch.undo()
    assert train(tmp_path, lambda i: evaluated.append(i) or 1.0, resume=True) == list(range(2, 8))
    assert evaluated == [1, 3, 5, 8]


def test_a_run_stopped_by_its_checkpoint_does_not_evaluate_again(tmp_path):
    evaluated = []
    train(tmp_path, lambda i: evaluated.append(i) or 1.0)
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    assert train(tmp_path, lambda i: evaluated.append(i) or 1.0, resume=True) == [4, 5, 6, 7]
    assert evaluated == [1, 3, 5, 8, 5, 8]


def test_a_run_terminated_before_its_evaluation_begins_with_it(tmp_path, monkeypatch):
    evaluated = []
    monkeypatch.setattr(SaveOnSigterm, "_anyone_received", lambda hook: 15 if hook.trainer.iter == 1 else 0)
    with pytest.raises(SystemExit):
        train(tmp_path, lambda i: evaluated.append(i) or 1.0)
    monkeypatch.undo()
    assert train(tmp_path, lambda i: evaluated.append(i) or 1.0, resume=True)[0] == 2
    assert evaluated == [1, 3, 5, 8]


def test_all_processes_stop_at_the_signal_of_any_without_a_tensor_on_their_devices(tmp_path, monkeypatch):
    received = iter([[0, 0], [0, signal.SIGTERM]])
    monkeypatch.setattr("lazyrun.engine.hooks.comm.all_gather", lambda mine: next(received))
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, lambda i: 1.0)
    assert stop.value.code == 143 and (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


@pytest.fixture
def heard():
    """SIGINT as in a terminal: the shell may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_saves_too_and_a_second_one_does_not_wait(tmp_path, capfd):
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    model = Squares(2, 1)

    def press(*_: object) -> None:
        if trainer.iter == 2:
            os.kill(os.getpid(), signal.SIGINT)

    model.register_forward_hook(press)
    trainer = Trainer(model, [torch.ones(1, 2)] * 8, torch.optim.SGD(model.parameters(), lr=0.1))
    hook = SaveOnSigterm(RunCheckpointer(model, str(tmp_path), trainer=trainer))
    trainer.register_hooks([hook])
    with pytest.raises(SystemExit) as stop:
        trainer.train(0, 8)
    assert stop.value.code == 130 and (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    assert "Ctrl-C: saving after this iteration" in capfd.readouterr().err
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    with pytest.raises(KeyboardInterrupt):
        hook._receive(signal.SIGINT, None)


def test_a_late_last_evaluation_belongs_to_the_iteration_of_an_early_one(tmp_path):
    """A run killed in the evaluation after its last iteration, and resumed without an iteration left."""
    evaluated = []
    train(tmp_path, lambda i: evaluated.append(i) or 10.0 + i, last=True)
    best = saved(tmp_path)
    for name in ("model_best.pth", "model_final.pth", "finished"):
        (tmp_path / name).unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000007.pth")
    whole = evaluated[-1]
    assert train(tmp_path, lambda i: evaluated.append(i) or 10.0 + i, resume=True, last=True) == []
    assert evaluated[-1] == whole and saved(tmp_path) == best == (whole, 10.0 + whole)
    assert (tmp_path / "finished").read_text() == "8"
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == 7
