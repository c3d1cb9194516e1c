"""The training step: detectron2's, on any device, in any precision, over one batch or several smaller ones."""

import logging
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import reduce
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_

from pretrain.common.commands import message_of, shows_tracebacks
from pretrain.common.errors import UserError
from pretrain.common.processes import lost_process
from pretrain.common.sharding import full_tensor, sliced_moments

__all__ = ["MAX_SKIPPED", "Trainer"]

logger = logging.getLogger(__name__)

MAX_SKIPPED = 10
"""Steps in a row whose gradient may be infinite or NaN."""

_DIVERGED = "The loss became infinite or NaN at iteration {iteration}"
_WAY_OUT = (
    "The last checkpoint is intact: continue from it with --resume, in train.amp.dtype=bfloat16 or "
    "train.amp.enabled=false, or at a lower optimizer.lr."
)


def _without_traceback(record: logging.LogRecord) -> bool:
    """detectron2 logs whatever ends a training with its traceback; mistakes and full disks get one sentence."""
    error = record.exc_info and record.exc_info[1]
    message = (lost_process(error) or message_of(error)) if error else None
    if message is not None and not shows_tracebacks():
        record.msg, record.args, record.exc_info = "Training stopped: %s", (message,), None
    return True


logging.getLogger("detectron2.engine.train_loop").addFilter(_without_traceback)


class Trainer(SimpleTrainer):
    """:class:`detectron2.engine.SimpleTrainer` with optional mixed precision and gradient accumulation.

    One step averages the losses of `grad_accum_steps` micro-batches and their gradients, then updates the weights once.
    The gradient is that of one batch of all their images where the loss is a mean over images and no layer looks across
    images. Mask R-CNN's losses come close to that: those of the proposal network are sums over a fixed count an image,
    those of the heads are means over the proposals sampled in the micro-batch, so a proposal weighs more in a
    micro-batch with fewer of them, and batch norm sees the micro-batch alone. Between processes gradients are averaged
    once a step, in the last backward pass; those of a model that shares out its weights in every one, as otherwise
    whole ones would have to be kept. Logged losses and the model's own scalars are averages over micro-batches.

    If the loss of any process is infinite or NaN, the run ends before the weights are updated. A gradient that is not
    finite although the loss is skips its step; :data:`MAX_SKIPPED` such steps in a row end the run.

    Args:
        model: gives a dict of losses for a batch; may be wrapped in DDP, or share out its weights.
        data_loader: endless loader of micro-batches.
        optimizer: of the model's parameters.
        amp_dtype: precision of autocast, None for full precision; float16 comes with loss scaling.
        grad_accum_steps: micro-batches a step.
        clip_grad: gradients of a larger norm are scaled down to it; None leaves them.

    Attributes:
        first_step: gives a context for the first step after the start, in which what cannot be trained shows.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        amp_dtype: torch.dtype | None = None,
        grad_accum_steps: int = 1,
        clip_grad: float | None = None,
    ):
        super().__init__(model, data_loader, optimizer)
        self.amp_dtype, self.grad_accum_steps, self.clip_grad = amp_dtype, grad_accum_steps, clip_grad
        self.skipped_in_a_row = 0
        self.first_step: Callable[[], AbstractContextManager] = nullcontext
        self.device_type = next(model.parameters()).device.type
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=amp_dtype is torch.float16)

    def run_step(self) -> None:
        with self.first_step() if self.iter == self.start_iter else nullcontext():
            self._step()

    def _step(self) -> None:
        assert self.model.training, "the model was left in evaluation mode"
        self.optimizer.zero_grad()
        losses, data_time = self._accumulate()
        self.after_backward()
        self._check_finite(losses)
        self._write_metrics(losses, data_time)
        self._update_weights()

    def _accumulate(self) -> tuple[dict[str, torch.Tensor], float]:
        """Adds up the gradients of one step; returns the average losses and the seconds spent waiting for data."""
        average: dict[str, torch.Tensor] = {}
        data_time = 0.0
        for step in range(self.grad_accum_steps):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            with self._synchronised(step + 1 == self.grad_accum_steps):
                with torch.autocast(self.device_type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
                    losses = self._losses(batch)
                losses = {name: loss / self.grad_accum_steps for name, loss in losses.items()}
                self.grad_scaler.scale(reduce(torch.add, losses.values())).backward()
            for name, loss in losses.items():
                average[name] = average.get(name, 0) + loss.detach()
        if self.grad_accum_steps > 1:
            self._average_scalars()
        return average, data_time

    def _losses(self, batch: Any) -> dict[str, torch.Tensor]:
        try:
            return self.model(batch)
        except FloatingPointError as e:  # detectron2's, of proposals that are not finite
            raise UserError(f"{_DIVERGED.format(iteration=self.iter)} ({e}). {_WAY_OUT}") from e

    def _check_finite(self, losses: dict[str, torch.Tensor]) -> None:
        """Raises UserError on all processes if the loss of any is infinite or NaN, which their sum then is too."""
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if comm.get_world_size() > 1:
            distributed.all_reduce(total)
        if not total.isfinite():
            values = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
            raise UserError(
                f"{_DIVERGED.format(iteration=self.iter)} (on process {comm.get_rank()}: {values}). {_WAY_OUT}"
            )

    def _update_weights(self) -> None:
        """An optimizer step, unless the gradient, which is the same on all processes by now, is not finite.

        Raises:
            UserError: it was not for too many steps in a row.
        """
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        whole_norm = full_tensor(norm)
        get_event_storage().put_scalar("grad_norm", whole_norm.item())
        if whole_norm.isfinite():
            self.skipped_in_a_row = 0
            if self.clip_grad is not None:
                clip_grads_with_norm_(parameters, self.clip_grad, norm)
            self.grad_scaler.step(self.optimizer)
        else:
            self._skip(whole_norm.item())
        self.grad_scaler.update()  # also lowers the scale of the loss where a gradient overflowed

    def _skip(self, norm: float) -> None:
        # The scale of float16 is searched from above: its first steps are meant to overflow.
        searching = self.grad_scaler.is_enabled() and self.grad_scaler.get_scale() > 1
        self.skipped_in_a_row += not searching
        if not searching:
            logger.warning(f"Iteration {self.iter}: the gradient's norm is {norm}; the step is skipped.")
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise UserError(
                f"The gradient was infinite or NaN in {MAX_SKIPPED} iterations in a row, up to {self.iter}; the "
                "weights are those from before. Continue from the last checkpoint with --resume at a lower "
                "optimizer.lr, with train.clip_grad=1.0, or with train.amp.enabled=false."
            )

    def _synchronised(self, now: bool) -> AbstractContextManager[None]:
        """The context of a forward and backward pass after which processes exchange gradients, or do not yet."""
        wrapped = isinstance(self.model, DistributedDataParallel)
        return nullcontext() if now or not wrapped else self.model.no_sync()

    def _average_scalars(self) -> None:
        """The model writes scalars of its own in every micro-batch, such as counts of sampled proposals."""
        storage = get_event_storage()
        for name, (_, iteration) in list(storage.latest().items()):
            if iteration == storage.iter:
                values = [v for v, i in storage.history(name).values()[-self.grad_accum_steps :] if i == iteration]
                storage.put_scalar(name, sum(values) / len(values), smoothing_hint=storage.smoothing_hints()[name])

    def after_train(self) -> None:
        """Also called while an error that ends the training is on its way: no other may take its place."""
        if sys.exc_info()[1] is None:
            super().after_train()
        else:
            self.storage.iter = self.iter
            for hook in self._hooks:
                with suppress(Exception):
                    hook.after_train()
        self._data_loader_iter_obj = None  # ends the loader's workers

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict | {"optimizer": sliced_moments(state_dict["optimizer"], self.optimizer)})
        if state := state_dict["grad_scaler"]:  # empty after a run without loss scaling
            self.grad_scaler.load_state_dict(state)
