"""Starting runs on devices that are not there, and how the processes of a run end."""

import multiprocessing
import os
import signal
import time
from argparse import Namespace
from contextlib import nullcontext

import pytest
from omegaconf import OmegaConf
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from lazyrun.engine.launch import _ForwardToChildren, _run, launch
from pretrain.common.errors import UserError


@pytest.mark.parametrize("device", ["nonsense", "cpu:zero", "vulkan"])
def test_device_that_does_not_exist(device):
    with pytest.raises(UserError, match=f"Device {device} cannot be used: .* name cpu"):
        launch(lambda *_: None, Namespace(num_gpus=0, num_machines=1), OmegaConf.create({"train": {"device": device}}))


def test_negative_number_of_processes(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    args = Namespace(num_gpus=-1, num_machines=1, machine_rank=0, dist_url="")
    with pytest.raises(UserError, match=r"--num-gpus must be at least 0, got -1"):
        launch(lambda *_: None, args, OmegaConf.create({"train": {"device": "cpu"}}))


def test_a_killed_process_is_named_with_its_log(monkeypatch):
    def killed(*_, **__):
        raise ProcessExitedException("killed", 1, 123, -9, "SIGKILL")

    monkeypatch.setattr("lazyrun.engine.launch.detectron2_launch", killed)
    cfg = OmegaConf.create({"train": {"device": "cpu", "output_dir": "output/run"}})
    args = Namespace(num_gpus=0, num_machines=1, machine_rank=0, dist_url="")
    with pytest.raises(SystemExit, match=r"error: rank 1 .* ended by SIGKILL, .* output/run/log\.txt\.rank1"):
        launch(lambda *_: None, args, cfg)


def tell(args, cfg):
    raise UserError("rank 1 has ended")


def crash(args, cfg):
    raise RuntimeError("a bug")


def killed_or_waiting(rank: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if rank:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@pytest.fixture
def signal_handlers():
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(("main", "says"), [(tell, "^1$"), (crash, "^error: rank 1 of this run was ended by SIGKILL")])
def test_what_a_process_has_told_is_not_told_again(main, says, monkeypatch, caplog, signal_handlers):
    """PyTorch ends the other processes, which is news only if nobody has said why the run ends."""

    def ends(work, *_, args, **__):
        with pytest.raises((SystemExit, RuntimeError), match=r"rank 1 has ended|a bug"):
            work(*args)
        start_processes(killed_or_waiting, nprocs=2, start_method="fork")

    monkeypatch.setattr("lazyrun.engine.launch.detectron2_launch", ends)
    cfg = OmegaConf.create({"train": {"device": "cpu", "output_dir": "output/run"}})
    with pytest.raises(SystemExit, match=says):
        launch(main, Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto"), cfg)
    assert ("Terminating process" in caplog.text) == (main is crash)


@pytest.mark.parametrize("mistaken", [False, True])
def test_the_group_is_closed_before_the_process_ends(mistaken):
    """A group that is left to the interpreter's end has threads that may end it with "terminate called"."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    seen = []

    def main(args, cfg) -> None:
        seen.append(distributed.is_initialized())
        if mistaken:
            raise UserError("no such thing")

    with pytest.raises(SystemExit, match="no such thing") if mistaken else nullcontext():
        _run(main, Namespace(), None)
    assert seen == [True] and not distributed.is_initialized()


def test_ctrl_c_of_the_starting_process_lets_its_children_save():
    """They may have got the Ctrl-C of the terminal already; a second one would not wait."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    forward = _ForwardToChildren()
    forward(signal.SIGINT, None)
    child.join(30)
    assert child.exitcode == -signal.SIGTERM and forward.received == signal.SIGINT


def test_a_signal_before_there_are_children_is_not_lost():
    with pytest.raises(SystemExit) as stop:
        _ForwardToChildren()(signal.SIGTERM, None)
    assert stop.value.code == 143


@pytest.mark.parametrize(("code", "says"), [(-signal.SIGTERM, "stopped by Ctrl-C\n"), (143, ""), (1, "")])
def test_a_run_that_was_asked_to_stop_ends_so(code, says, monkeypatch, capsys, signal_handlers):
    """Its processes end by whichever signal came first, those that start or have saved without a word."""

    def ends(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        raise ProcessExitedException("ended", 1, 123, code, "SIGTERM" if code < 0 else None)

    monkeypatch.setattr(multiprocessing, "active_children", lambda: [Namespace(pid=None)])
    monkeypatch.setattr("lazyrun.engine.launch.detectron2_launch", ends)
    cfg = OmegaConf.create({"train": {"device": "cpu", "output_dir": "output/run"}})
    with pytest.raises(SystemExit) as stop:
        launch(tell, Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto"), cfg)
    assert (stop.value.code, capsys.readouterr().err) == (1 if code == 1 else 130, says)
