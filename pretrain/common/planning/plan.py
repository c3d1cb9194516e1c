"""What a training takes, per GPU: memory at any batch size from two measured ones, and the hours."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from pretrain.common.devices import AMP
from pretrain.common.planning.fake import fake_tensors, make_fake
from pretrain.common.planning.memory import StepMemory, bytes_of, step_memory

__all__ = ["Cost", "Plan", "Sharing", "Training", "largest_fitting", "make_plan"]

MakeForward = Callable[[nn.Module, int], Callable[[], torch.Tensor]]
"""From a module of fake tensors and a batch size to the forward pass of a training step."""


@dataclass(frozen=True)
class Training:
    """A training to plan.

    Attributes:
        name: of the model or config.
        model: with real parameters, whose values do not matter; planning makes them fake.
        make_forward: in training mode, without autocast.
        make_optimizer: of the module.
        probes: two batch sizes to measure.
        batch_size: images of a GPU's forward pass in the recipe.
        micro_batches: forward passes of an optimizer step.
        gpus: of the recipe.
        steps: optimizer steps.
        noun: what a batch is made of.
        units: modules whose weights are gathered one at a time, where the GPUs share out weights, gradients and the
            optimizer's state; None if each of them has all.
    """

    name: str
    model: nn.Module
    make_forward: MakeForward
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    probes: tuple[int, int]
    batch_size: int
    micro_batches: int
    gpus: int
    steps: int
    noun: str = "image"
    units: Sequence[nn.Module] | None = None


@dataclass(frozen=True)
class Cost:
    """Forward and backward pass in one precision, with or without checkpointing.

    Attributes:
        amp: a key of :data:`pretrain.common.devices.AMP`.
        checkpointed: activations are recomputed; None if the model cannot choose.
        probes: what two batch sizes took.
    """

    amp: str
    checkpointed: bool | None
    probes: tuple[tuple[int, StepMemory], tuple[int, StepMemory]]

    def _line(self, attribute: str, batch_size: int) -> float:
        (b1, first), (b2, second) = self.probes
        y1, y2 = getattr(first, attribute), getattr(second, attribute)
        return y1 + (y2 - y1) * (batch_size - b1) / (b2 - b1)

    def saved(self, batch_size: int) -> float:
        """Bytes between the two passes."""
        return self._line("saved", batch_size)

    def peak(self, batch_size: int) -> float:
        """Most bytes beyond parameters, buffers and the optimizer's state."""
        return self._line("peak", batch_size)

    def flops(self, batch_size: int) -> float:
        """Of both passes."""
        return self._line("flops", batch_size)


@dataclass(frozen=True)
class Sharing:
    """Weights that GPUs share out, in bytes (:mod:`pretrain.common.sharding`).

    Attributes:
        weights: all of them.
        outside: those in no unit, which every GPU has whole during a step.
        largest: those of the largest unit.
    """

    weights: int
    outside: int
    largest: int

    @property
    def working(self) -> int:
        """What a GPU has for a time, counted and not measured.

        Outside of units: weights, gradients, and the buffer to send them. Of units: the weights of one and the buffer
        they came in, the weights of the next, the gradients of one and the buffer to send them.
        """
        return 3 * self.outside + 5 * self.largest


@dataclass(frozen=True)
class Plan:
    """Memory in bytes.

    Attributes:
        parameters: their number; `parameter_bytes` counts buffers too.
        gradients: of all parameters that are trained; of several GPUs, as many bytes again are DDP's buckets.
        optimizer: its state.
        sharing: of weights, gradients and optimizer; None if each GPU has all of them.
    """

    training: Training
    parameters: int
    parameter_bytes: int
    gradients: int
    optimizer: int
    costs: Sequence[Cost]
    sharing: Sharing | None = None

    @property
    def buckets(self) -> int:
        return self.gradients if self.training.gpus > 1 and self.sharing is None else 0

    @property
    def share(self) -> float:
        """What each GPU always has of that which is shared out."""
        assert self.sharing is not None
        return (self.sharing.weights + self.gradients + self.optimizer) / self.training.gpus

    def peak(self, cost: Cost, batch_size: int) -> float:
        """Most bytes that are allocated on a GPU at a time.

        While the optimizer updates, no activations are left: then it is gradients that live beside its state.
        """
        if self.sharing is not None:
            buffers = self.parameter_bytes - self.sharing.weights
            return buffers + self.share + self.sharing.working + cost.peak(batch_size)
        return self.parameter_bytes + self.optimizer + self.buckets + max(self.gradients, cost.peak(batch_size))

    def gpu_hours(self, cost: Cost, flops_per_second: float) -> float:
        training = self.training
        passes = training.steps * training.micro_batches * training.gpus
        return passes * cost.flops(training.batch_size) / flops_per_second / 3600


def largest_fitting(plan: Plan, cost: Cost, memory: float) -> int:
    """The largest batch size whose peak is at most `memory` bytes; 0 if none."""
    slope = cost.peak(2) - cost.peak(1)
    guess = int(max(0.0, (memory - plan.peak(cost, 0)) / slope)) + 2
    return next((n for n in range(guess, 0, -1) if plan.peak(cost, n) <= memory), 0)


def make_plan(
    training: Training, device: torch.device, amps: Sequence[str], checkpointing: Sequence[bool] = (False, True)
) -> Plan:
    """Measures a training on fake tensors; its model is of no use afterwards.

    Args:
        device: whose code paths to follow; a GPU need not be there. Name its index, as in `cuda:0`.
        amps: keys of :data:`pretrain.common.devices.AMP`.
        checkpointing: whether to recompute activations; of models that cannot choose, only what they do is measured.
    """
    with fake_tensors(recompute_once=True) as mode:
        model = make_fake(training.model, mode, device)
        parameters, trained = list(model.parameters()), [p for p in model.parameters() if p.requires_grad]
        choices = list(checkpointing) if _set_checkpointing(model, False) else [None]
        costs = [
            Cost(amp, checkpointed, _probe(training, model, device, amp, checkpointed))
            for amp in amps
            for checkpointed in choices
        ]
        return Plan(
            training,
            sum(p.numel() for p in parameters),
            bytes_of([*parameters, *model.buffers()]),
            bytes_of(trained),
            _optimizer_state(training, model, trained),
            costs,
            _sharing(training, parameters),
        )


def _sharing(training: Training, parameters: Sequence[torch.Tensor]) -> Sharing | None:
    if training.units is None:
        return None
    units, weights = [bytes_of(unit.parameters()) for unit in training.units], bytes_of(parameters)
    return Sharing(weights, weights - sum(units), max(units, default=0))


def _set_checkpointing(model: nn.Module, enable: bool) -> bool:
    """Whether any part of the model has a say in it."""
    found = False
    for part in model.modules():
        if callable(setter := getattr(part, "set_grad_checkpointing", None)):
            setter(enable)
            found = True
    return found


def _probe(
    training: Training, model: nn.Module, device: torch.device, amp: str, checkpointed: bool | None
) -> tuple[tuple[int, StepMemory], tuple[int, StepMemory]]:
    if checkpointed is not None:
        _set_checkpointing(model, checkpointed)
    dtype = AMP[amp]

    def measured(batch_size: int) -> tuple[int, StepMemory]:
        def make_forward() -> Callable[[], torch.Tensor]:
            run = training.make_forward(model, batch_size)

            def forward() -> torch.Tensor:
                with torch.autocast(device.type, dtype=dtype) if dtype else nullcontext():
                    return run()

            return forward

        return batch_size, step_memory(model, make_forward, keep_gradients=training.units is None)

    first, second = training.probes
    return measured(first), measured(second)


def _optimizer_state(training: Training, model: nn.Module, trained: Sequence[torch.Tensor]) -> int:
    """Bytes of what a step of the optimizer leaves."""
    optimizer = training.make_optimizer(model)
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return bytes_of(_tensors_of(optimizer))


def _tensors_of(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))
