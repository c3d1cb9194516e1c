"""Starting one process, several on this machine, or joining those that torchrun started."""

import logging
import multiprocessing
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException

from pretrain.common.commands import exit_on_user_error, name_of_signal
from pretrain.common.devices import check_device
from pretrain.common.errors import UserError

__all__ = ["launch"]

_ASKED_TO_STOP = [code for s in (signal.SIGTERM, signal.SIGINT) for code in (-s, 128 + s)]
"""Exit codes of processes that a signal ended, or that ended on it by themselves."""

Main = Callable[[Namespace, DictConfig | None], None]


def launch(main: Main, args: Namespace, cfg: DictConfig) -> None:
    """Runs `main(args, cfg)` in every process, with process groups set up for detectron2.

    Processes that are started here load the config again, and get None for `cfg`: what a config holds, such as a
    function of the config file itself, cannot be sent to them.

    Under torchrun (one process per GPU on any number of machines) this process joins the group that torchrun
    describes, and `--num-gpus` and its kin do not matter. Otherwise `--num-gpus` processes are started here, one if it
    is 0. On the CPU processes talk through gloo, on GPUs through NCCL.

    Args:
        cfg: config of the run; its `train.device` says where to run.

    Raises:
        UserError: the device is a GPU that is not there, or no device at all; or `--num-gpus` is negative.
    """
    device = cfg.train.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"train.device={device}, but no GPU can be used; on a CPU add --num-gpus 0 train.device=cpu.")
    if not device.startswith("cuda"):  # a GPU is first touched in the process that trains on it
        check_device(device)
    if device == "cpu":
        # detectron2 picks NCCL wherever it sees a GPU.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _join_torchrun(main, args, cfg)
        return
    if args.num_gpus < 0:
        raise UserError(f"--num-gpus must be at least 0, got {args.num_gpus}.")
    visible = torch.cuda.device_count()
    if device != "cpu" and args.num_gpus > visible:
        raise UserError(f"--num-gpus {args.num_gpus}, but {visible} GPUs are visible.")
    several = args.num_gpus * args.num_machines > 1
    told = multiprocessing.get_context("spawn").Event() if several else None
    forward = _ForwardToChildren()
    if several:
        for signum in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, forward)
    with _telling_of_ends(cfg, told, forward):
        detectron2_launch(
            _run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args, None if several else cfg, told),
        )


@contextmanager
def _telling_of_ends(cfg: DictConfig, told: Event | None, forward: "_ForwardToChildren") -> Iterator[None]:
    """Ends this process if one that it started has ended early, and says so unless that one did, as `told` says.

    A run that was asked to stop has the exit code of that signal, whichever way its processes ended by it: one that is
    starting, or has saved already, ends at once, and in a terminal each gets both Ctrl-C and what is passed on.
    """

    def is_news(record: logging.LogRecord) -> bool:
        is_told = told is not None and told.is_set()
        return not (is_told and str(record.msg).startswith("Terminating process"))

    log = logging.getLogger(ProcessExitedException.__module__)  # where PyTorch says that it ends the other processes
    log.addFilter(is_news)
    try:
        yield
    except ProcessExitedException as e:
        if forward.received and e.exit_code in _ASKED_TO_STOP:
            if e.exit_code < 0 and not (told is not None and told.is_set()):
                print(f"stopped by {name_of_signal(forward.received)}", file=sys.stderr)
            sys.exit(128 + forward.received)
        if e.exit_code > 0 or (told is not None and told.is_set()):
            sys.exit(max(e.exit_code, 1))
        sys.exit(
            f"error: rank {e.error_index} of this run was ended by {e.signal_name}, and the others with it; its log is "
            f"{_log_of(cfg, e.error_index)}. A SIGKILL that nobody sent means that memory was out. Continue with "
            "--resume."
        )
    finally:
        log.removeFilter(is_news)


def _log_of(cfg: DictConfig, rank: int) -> Path:
    return Path(cfg.train.output_dir) / (f"log.txt.rank{rank}" if rank else "log.txt")


def _run(main: Main, args: Namespace, cfg: DictConfig | None, told: Event | None = None) -> None:
    """What each process does.

    Args:
        told: set by a process that says why the run ends, so that the one that started it need not.
    """
    try:
        with exit_on_user_error():
            main(args, cfg)
    except SystemExit as e:
        if told is not None and isinstance(e.code, str):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of the starting process, which would end it unheard
            told.set()
        raise
    finally:
        # Left to the interpreter's end, the group's threads may end the process with "terminate called".
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _join_torchrun(main: Main, args: Namespace, cfg: DictConfig) -> None:
    device = cfg.train.device
    local_rank = int(os.environ["LOCAL_RANK"])
    if device != "cpu":
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("gloo" if device == "cpu" else "nccl")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    _run(main, args, cfg)


class _ForwardToChildren:
    """Handles signals in the starting process, which only waits; its children are the ones that train.

    A Ctrl-C in a terminal reaches them without it, and a second one would end them at once: they get SIGTERM.

    Attributes:
        received: the first signal, or 0.
    """

    received = 0

    def __call__(self, signum: int, _: object) -> None:
        self.received = self.received or signum
        children = multiprocessing.active_children()
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)
        if not children:  # they would start all the same
            sys.exit(128 + signum)
