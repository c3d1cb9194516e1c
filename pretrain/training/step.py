"""One optimizer step, and what happens when its loss or gradient is not finite."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretrain.common.distributed import World
from pretrain.common.errors import NonFiniteError
from pretrain.common.sharding import full_tensor
from pretrain.training.precision import Precision

__all__ = ["Step", "Stepper"]

logger = logging.getLogger(__name__)


@dataclass
class Step:
    """What one optimizer step did; `loss` is None if no step was taken, `parts` the losses it is made of, if any."""

    loss: float | None
    grad_norm: float | None
    parts: Sequence[float] = ()


class Stepper:
    """Runs optimizer steps in which a non-finite loss or gradient never reaches weights or running statistics.

    Such a step is undone before the weights change and run again, on the same images, one rung higher in precision.
    If a higher precision helps, training stays there. If even the highest does not, the images are at fault: they are
    skipped and precision returns to where it was, until `max_failures` steps in a row have failed.

    Args:
        loss_module: called with what is in a micro-batch, returns the loss, or the loss and, without gradient, the
            losses `(parts,)` that it is made of; may be wrapped in DDP, or share out its weights.
        clip_grad: largest norm of the gradient, 0 for none.
    """

    def __init__(
        self,
        loss_module: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        world: World,
        clip_grad: float = 0.0,
        max_failures: int = 5,
    ):
        self.loss_module, self.optimizer, self.precision, self.world = loss_module, optimizer, precision, world
        self.max_norm = clip_grad if clip_grad > 0 else float("inf")
        self.max_failures = max_failures
        self.failures = 0
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, group: Sequence[tuple[Any, ...]]) -> Step:
        """One step on the micro-batches of a group, which count alike.

        Raises:
            NonFiniteError: too many steps in a row failed.
        """
        start_level = self.precision.level
        # Running statistics change in the forward pass, before it is known whether the step can be taken.
        buffers = [(buffer, buffer.clone()) for buffer in self.loss_module.buffers()]
        while True:
            losses, grad_norm = self._backward(group)
            loss = losses[0]
            if self.world.any(~(loss.isfinite() & grad_norm.isfinite())):
                self.optimizer.zero_grad(set_to_none=True)
                for buffer, before in buffers:
                    buffer.copy_(before)
                if not self._recover(loss, grad_norm, start_level):
                    return Step(None, None)
                continue
            self.precision.scaler.step(self.optimizer) if self.precision.scales_loss else self.optimizer.step()
            if self.precision.scales_loss:
                self.precision.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.failures = 0
            return Step(loss.item(), grad_norm.item(), losses[1:].tolist())

    def _backward(self, group: Sequence[tuple[Any, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the mean loss of the group; returns the means over all processes of that loss and its parts
        `(1 + parts,)`, and the gradient's norm."""
        total = None
        scaler, loss_module = self.precision.scaler, self.loss_module
        for i, batch in enumerate(group):
            # Gradients of shared-out weights are averaged in each micro-batch: whole ones would have to be kept.
            wait = i < len(group) - 1
            with loss_module.no_sync() if wait and isinstance(loss_module, DistributedDataParallel) else nullcontext():
                with self.precision.autocast():
                    output = loss_module(*batch)
                    loss, *parts = output if isinstance(output, tuple) else (output,)
                    loss = loss / len(group)
                (scaler.scale(loss) if self.precision.scales_loss else loss).backward()
            losses = torch.cat([loss.detach()[None], *(values / len(group) for values in parts)])
            total = losses if total is None else total + losses
        assert total is not None, "a step needs a micro-batch"
        if self.precision.scales_loss:
            scaler.unscale_(self.optimizer)
        grad_norm = full_tensor(nn.utils.clip_grad_norm_(self.parameters, self.max_norm))
        return self.world.mean(total), grad_norm

    def _recover(self, loss: torch.Tensor, grad_norm: torch.Tensor, start_level: int) -> bool:
        """After a failed attempt; returns whether to run the same images again."""
        facts = f"loss {loss.item():.4g}, gradient norm {grad_norm.item():.4g} in {self.precision}"
        scaler = self.precision.scaler
        if self.precision.scales_loss:
            # In fp16 an overflowing gradient first means that the loss is scaled too high.
            scale = scaler.get_scale()
            scaler.update()
            if loss.isfinite() and 1 <= scaler.get_scale() < scale:
                logger.info("Gradient overflow (%s): loss scale lowered to %g.", facts, scaler.get_scale())
                return True
        if not self.precision.is_highest:
            self.precision.set_level(self.precision.level + 1)
            logger.warning("Not finite: %s. Step undone; trying again in %s.", facts, self.precision)
            return True
        self.failures += 1
        logger.warning("Not finite: %s. Step skipped (%d in a row).", facts, self.failures)
        if self.failures >= self.max_failures:
            raise NonFiniteError(
                f"{self.failures} steps in a row were not finite even in {self.precision} (last: {facts}). The weights "
                "are as after the last good step. Check the data, lower --blr or set --clip_grad."
            )
        self.precision.set_level(start_level)
        return False

    def state_dict(self) -> dict:
        return {"precision": self.precision.state_dict(), "failures": self.failures}

    def load_state_dict(self, state: dict) -> None:
        self.precision.load_state_dict(state["precision"])
        self.failures = state["failures"]
