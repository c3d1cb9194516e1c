"""The best weights stay the best ones across a resume."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from convmae_det.checkpoint import RunCheckpointer
from convmae_det.hooks import BestCheckpointer


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
