"""Hooks that make a run repeatable, preemptible, and keep its best weights."""

import logging
import math
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from detectron2.utils import comm
from torch import nn

from lazyrun.engine.checkpoint import RunCheckpointer
from lazyrun.engine.ema import WeightAverage
from pretrain.common.commands import name_of_signal
from pretrain.common.devices import peak_memory_bytes
from pretrain.common.files import replacing

__all__ = [
    "BestCheckpointer",
    "FinishRun",
    "FrozenParts",
    "RecordMemory",
    "SaveOnSigterm",
    "SavedEvalHook",
    "SeedEachStep",
]

logger = logging.getLogger(__name__)

FINISHED = "finished"
"""File in a run's folder with the number of iterations after which nothing was due any more."""


class SeedEachStep(HookBase):
    """Seeds all generators at each iteration from `(seed, iteration, rank)`.

    Proposal sampling and stochastic depth then depend on the iteration alone, so a resumed run draws what the
    uninterrupted one did, without generator states of every process in the checkpoint. A negative seed does nothing.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self) -> None:
        if self.seed < 0:
            return
        seeds = np.random.SeedSequence([self.seed, self.trainer.iter, comm.get_rank()]).generate_state(3)
        random.seed(int(seeds[0]))
        np.random.seed(seeds[1])
        torch.manual_seed(int(seeds[2]))


class RecordMemory(HookBase):
    """Records this process's peak memory as `max_mem_mb`: the GPU's, or on a CPU the resident one.

    Args:
        period: of the log, in iterations; the peak is looked up only for what is written.
    """

    def __init__(self, period: int):
        self.period = period

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.period == 0:
            device = next(self.trainer.model.parameters()).device
            self.trainer.storage.put_scalar("max_mem_mb", peak_memory_bytes(device) / 1e6, smoothing_hint=False)


class SaveOnSigterm(HookBase):
    """On SIGTERM or Ctrl-C finishes the iteration, saves a checkpoint for `--resume`, and exits with 143 or 130.

    A second Ctrl-C does not wait.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, checkpointer: RunCheckpointer):
        self.checkpointer = checkpointer
        self.received = 0
        self.all_is_saved = False

    def before_train(self) -> None:
        # A shell has SIGINT ignored for jobs in the background.
        heard = [s for s in self.SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        self.previous = {signum: signal.signal(signum, self._receive) for signum in heard}

    def after_train(self) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, _: object) -> None:
        if self.received == signum == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received and signum == signal.SIGINT and not self.all_is_saved and comm.is_main_process():
            os.write(sys.stderr.fileno(), b"\nCtrl-C: saving after this iteration; once more stops at once.\n")
        self.received = self.received or signum
        if self.all_is_saved:
            raise SystemExit(128 + signum)

    @contextmanager
    def exiting_at_once(self) -> Iterator[None]:
        """A block with nothing to save, such as an evaluation: the signal ends it at once, also one that came while the
        last checkpoint was written. Called in every process."""
        self.all_is_saved = True
        try:
            self.received = self._anyone_received()
            if self.received:
                raise SystemExit(128 + self.received)
            yield
        except SystemExit:
            logger.warning(f"{name_of_signal(self.received)}: stopped in the evaluation; --resume evaluates first.")
            raise
        finally:
            self.all_is_saved = False

    def after_step(self) -> None:
        received = self._anyone_received()
        if not received or self.trainer.iter + 1 >= self.trainer.max_iter:
            return
        name = f"model_{self.trainer.iter:07d}"
        self.checkpointer.save(name, iteration=self.trainer.iter)
        comm.synchronize()
        logger.warning(
            f"{name_of_signal(received)}: saved {name}.pth after iteration {self.trainer.iter}; continue with --resume."
        )
        raise SystemExit(128 + received)

    def _anyone_received(self) -> int:
        """All processes must stop after the same iteration, though the signal reaches them at different ones."""
        return max(comm.all_gather(self.received))  # over gloo: no GPU has to wait for it


class SavedEvalHook(EvalHook):
    """:class:`detectron2.engine.hooks.EvalHook` that saves a checkpoint before it evaluates in the middle of a run.

    An evaluation may take longer than a preempted job has left, or fail. A run that is resumed from a checkpoint of
    before an evaluation that was due does that evaluation first. Register it before the hooks that save checkpoints,
    and after `sigterm`.

    Args:
        period, function: as detectron2's.
        sigterm: the hook that must not wait for an evaluation to end.
        checkpoint_period: of the periodic checkpointer: where that saves after the evaluation anyway, its file has the
            same name; elsewhere `model_before_evaluation.pth` is replaced each time.
    """

    def __init__(self, period: int, function: Callable[[], dict], sigterm: SaveOnSigterm, checkpoint_period: int):
        super().__init__(period, function)
        self.sigterm, self.checkpoint_period = sigterm, checkpoint_period
        self.pending = False
        self.done = -1

    def before_train(self) -> None:
        if self.pending:
            logger.info("The evaluation that was due when this run stopped comes first.")
            self.trainer.storage.iter = self.trainer.start_iter - 1  # its results belong to that iteration
            self._evaluate()

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if self._is_due():
            periodic = (iteration + 1) % self.checkpoint_period == 0
            name = f"model_{iteration:07d}" if periodic else "model_before_evaluation"
            self.sigterm.checkpointer.save(name, iteration=iteration)
            self._evaluate()

    def _is_due(self) -> bool:
        after = self.trainer.iter + 1
        in_the_middle = self._period > 0 and after % self._period == 0 and after != self.trainer.max_iter
        return in_the_middle and self.done != self.trainer.iter

    def _evaluate(self) -> None:
        with self.sigterm.exiting_at_once():
            self._do_eval()
        self.pending, self.done = False, self.trainer.storage.iter

    def state_dict(self) -> dict:
        return {"pending": True} if self._is_due() else {}

    def load_state_dict(self, state: dict) -> None:
        self.pending = state["pending"]


class BestCheckpointer(HookBase):
    """Keeps the weights of the best evaluation as `model_best.pth`, also across resumes.

    Unlike detectron2's hook it remembers the best value in the checkpoint, and does not make the best weights the place
    where `--resume` begins. Register it after the evaluation and before the periodic checkpointer.

    Args:
        metric: name in the event storage, such as `bbox/AP`; higher is better. One of the averaged weights, such as
            `ema/bbox/AP`, keeps those.
        average: the averaged weights, if there are any.
    """

    def __init__(self, checkpointer: RunCheckpointer, metric: str, average: WeightAverage | None = None):
        self.checkpointer, self.metric, self.average = checkpointer, metric, average
        self.best: float | None = None
        self.seen = -1

    def before_train(self) -> None:
        self._keep_if_best()  # of an evaluation that an interrupted run had left undone

    def after_step(self) -> None:
        self._keep_if_best()

    def after_train(self) -> None:
        self._keep_if_best()

    def _keep_if_best(self) -> None:
        latest = self.trainer.storage.latest().get(self.metric)
        if latest is None or latest[1] <= self.seen:
            return
        value, self.seen = float(latest[0]), int(latest[1])
        if math.isfinite(value) and (self.best is None or value > self.best):
            self.best = value
            model = self.average.model if self.average and self.metric.startswith("ema/") else None
            self.checkpointer.save_weights("model_best", model, iteration=self.seen, metric=self.metric, value=value)
            logger.info(f"Best {self.metric} so far: {value:.2f}; saved as model_best.pth.")

    def state_dict(self) -> dict:
        return {} if self.best is None else {"best": self.best, "seen": self.seen}

    def load_state_dict(self, state: dict) -> None:
        self.best, self.seen = state["best"], state["seen"]


class FrozenParts(HookBase):
    """Keeps modules in evaluation mode, also after evaluations, which put the whole model back into training mode."""

    def __init__(self, modules: Sequence[nn.Module]):
        self.modules = modules

    def before_step(self) -> None:
        for module in self.modules:
            module.eval()


class FinishRun(HookBase):
    """Notes that nothing is due any more: training, last files, last evaluation. Register it last.

    A run that was stopped after its last iteration, but before that note, finds what is missing when it is resumed.
    """

    def __init__(self, checkpointer: RunCheckpointer, average: WeightAverage | None):
        self.checkpointer, self.average = checkpointer, average

    @staticmethod
    def is_finished(output_dir: str, max_iter: int) -> bool:
        """Whether the run in a folder has done all that `max_iter` iterations ask for."""
        note = Path(output_dir) / FINISHED
        return note.is_file() and note.read_text().strip() == str(max_iter)

    def before_train(self) -> None:
        if self.trainer.start_iter < self.trainer.max_iter:
            return
        self.trainer.iter = self.trainer.max_iter - 1  # so that results belong to the same iteration as otherwise
        # The last checkpoint is of the last iteration; these are written after it.
        self.checkpointer.save("model_final", iteration=self.trainer.max_iter - 1)
        if self.average is not None:
            self.average.save_final()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter and comm.is_main_process():
            with replacing(Path(self.checkpointer.save_dir) / FINISHED) as temporary:
                temporary.write_text(str(self.trainer.max_iter))
