"""Kind `ranks`: one of the two processes of a training is killed, and both are started again."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from shapes import REPO
from torch import distributed
from torch.optim.optimizer import register_optimizer_step_pre_hook

from soaking.cases import Case, Verdict
from soaking.kills import judge_resumed
from soaking.sandbox import Ended, Limits, before_changes, run
from soaking.trainings import COMMANDS, TRAININGS, Training, lab

__all__ = ["ranks"]

SIZE = 2
MOST_SECONDS = 30
"""From the death of a process to the end of the others."""

STEPS = 4
"""Of each process; where four images are for two processes of two, as many as epochs."""
SECONDS, SILENT = 240, 90
"""As of :class:`Limits`: two processes that wait for one another are silent longer than one."""

Arm = Callable[[int], None]
"""Called in each process, with its rank, once all have joined."""


def ranks(case: Case) -> Verdict:
    """Kills one of two processes at a random or aimed moment, then resumes with two."""
    name, victim = case.rng.choice(sorted(TRAININGS)), case.rng.randrange(SIZE)
    folder, whole = _whole(name)
    output, death = case.folder / "run", case.folder / "death"
    way = case.rng.choice(["step", "time"] if victim else ["step", "time", "change"])
    most = {"step": STEPS, "time": whole.seconds, "change": whole.changes}[way]
    when = case.rng.random() * most if way == "time" else case.rng.randint(1, int(most))
    ended = _run(name, output, arm=partial(_arm, victim, way, when, output, death))
    now = time.monotonic()
    where = {"step": f"before step {when}", "time": f"{when:.2f} s after it joined", "change": f"before change {when}"}
    shown = f"{name} on {SIZE} processes, rank {victim} killed {where[way]}"
    killed = death.exists()
    if fault := ended.fault or (_bad_word(ended, victim) if killed else None):
        return Verdict(shown, fault, ended.sentence)
    if killed and now - float(death.read_text()) > MOST_SECONDS:
        return Verdict(shown, "hang", f"the others ended {now - float(death.read_text()):.0f} s later")
    resumed = _run(name, output, resume=True) if killed else ended
    return judge_resumed(f"{shown}, resumed", resumed, folder, output)


def _bad_word(ended: Ended, victim: int) -> str | None:
    """The fault of a command one of whose processes was killed; it must fail, and name the process in one sentence."""
    if ended.code == 0:
        return "accepted"
    sentences = [line for line in ended.output.splitlines() if "error: " in line]
    return None if len(sentences) == 1 and f"rank {victim} of this run" in sentences[0].lower() else "traceback"


@cache
def _whole(name: str) -> tuple[Path, Ended]:
    """The folder of an uninterrupted run on two processes, and how it ended."""
    lab.whole(name)  # also makes what the training begins from
    folder = lab.root / f"whole-{name}-{SIZE}"
    ended = _run(name, folder)
    if ended.code != 0 or ended.fault:
        raise RuntimeError(f"the uninterrupted run on {SIZE} processes failed: {name}\n{ended.output[-3000:]}")
    return folder, ended


def _run(name: str, output: Path, *, resume: bool = False, arm: Arm | None = None) -> Ended:
    training = TRAININGS[name]
    argv = training.argv(output, *([] if training.is_lazy else ["--epochs", str(STEPS)]), resume=resume)
    limits = Limits(seconds=SECONDS, silent=SILENT, folder=output)
    return run(partial(_launch, training, argv, arm or (lambda rank: None)), limits, cwd=REPO)


def _launch(training: Training, argv: list[str], arm: Arm) -> None:
    """Starts the processes as the command's launcher does, but by forking, which needs no imports."""
    join = distributed.init_process_group

    def joining(*args: object, **keywords: object) -> None:
        join(*args, **keywords)
        arm(distributed.get_rank())

    distributed.init_process_group = joining
    if training.is_lazy:
        torch.multiprocessing.start_processes = partial(torch.multiprocessing.start_processes, start_method="fork")
        number = argv.index("--num-gpus") + 1
        COMMANDS[training.command]([*argv[:number], str(SIZE), "--dist-url", "auto", *argv[number + 1 :]])
    else:
        _launch_as_torchrun(partial(COMMANDS[training.command], argv))


def _launch_as_torchrun(command: Callable[[], object]) -> None:
    """Forks processes that find each other by environment variables; the end of each is waited for."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(SIZE))
    context = torch.multiprocessing.get_context("fork")
    processes = [context.Process(target=_be_rank, args=(rank, command)) for rank in range(SIZE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    if -signal.SIGKILL in codes and codes.count(0) == SIZE - 1:  # the others were done, so only a launcher can tell
        sys.exit(f"error: rank {codes.index(-signal.SIGKILL)} of this run was killed")
    sys.exit(any(codes))


def _be_rank(rank: int, command: Callable[[], object]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    command()


def _arm(victim: int, way: str, when: float, output: Path, death: Path, rank: int) -> None:
    """Lets the victim die at its moment."""
    count = 0

    def die() -> None:
        death.write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)

    def at_next(*_: object) -> None:
        nonlocal count
        count += 1
        if count == when:
            die()

    if rank != victim:
        return
    if way == "time":
        timer = threading.Timer(when, die)
        timer.daemon = True
        timer.start()
    elif way == "step":
        register_optimizer_step_pre_hook(at_next)
    else:
        before_changes(output, at_next)
