"""What the console says of a run and of a step."""

import argparse
import logging

import pytest
from torch import nn

from pretrain.training.console import log_plan, log_step
from pretrain.training.step import Step


@pytest.fixture
def console(caplog):
    caplog.set_level(logging.INFO, logger="pretrain.training.console")
    return caplog


def test_the_plan_of_a_run(console):
    args = argparse.Namespace(model="linear", input_size=(4, 32, 48), batch_size=3, accum_iter=2, lr=0.00123, epochs=5)
    log_plan(args, nn.Linear(2, 1), 40, "video", world_size=2, steps_per_epoch=3)
    assert console.messages == [
        "linear, 3 parameters; 40 videos of 4x32x48.",
        "Effective batch 12 = 3 videos x 2 micro-batches x 2 processes; learning rate 0.00123; 3 steps an epoch x "
        "5 epochs = 15 steps.",
    ]


@pytest.mark.parametrize(
    ("losses", "told"), [({}, "1.5000"), ({"rgb": 1.0, "mimic": 0.5}, "1.5000 (rgb 1.0000, mimic 0.5000)")]
)
def test_a_step(console, losses, told):
    speed = {"images_per_second": 12.34, "data_wait": 0.25, "eta_seconds": 3661.4}
    log_step("epoch 2 step 3/4", Step(1.5, 0.125), losses, 0.001, speed, 2_000_000)
    rest = "lr 0.001  grad 0.125  12.3 images/s  data wait 25%  2 MB  ETA 1:01:01"
    assert console.messages == [f"epoch 2 step 3/4  loss {told}  {rest}"]
