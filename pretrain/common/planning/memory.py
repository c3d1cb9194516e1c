"""Memory and FLOPs of a training step: which storages live, and when most of them do.

PyTorch has a tracker as well, `torch.distributed._tools.mem_tracker.MemTracker`. It needs a gradient for every
parameter, where our position embeddings have none, and the engine's backward pass.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import addmm_flop, baddbmm_flop, flop_registry

from pretrain.common.planning.backward import run_backward

__all__ = ["LiveStorages", "StepMemory", "bytes_of", "step_memory"]

CUDA_BLOCK = 512
"""Bytes that PyTorch's allocator rounds up to on a GPU."""

aten = torch.ops.aten
FLOPS = {**flop_registry, aten.addmm_: addmm_flop, aten.baddbmm_: baddbmm_flop}
"""PyTorch's formulas, two FLOPs for a multiply-add, and those it lacks for products in place."""


class LiveStorages(TorchDispatchMode):
    """Adds up the storages that tensors made in this mode live in, and the FLOPs of what makes them.

    Attributes:
        now: bytes alive.
        peak: most bytes that were alive at a time.
        flops: of matrix products, convolutions and attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._alive: dict[int, weakref.ref] = {}

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Counts tensors that were there before, each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._alive:
                continue
            if tensor.device.type == "cuda":
                size = -(-size // CUDA_BLOCK) * CUDA_BLOCK
            self.now += size
            self.peak = max(self.peak, self.now)
            self._alive[key] = weakref.ref(storage, self._forget(key, size))

    def _forget(self, key: int, size: int) -> Callable[[weakref.ref], None]:
        def forget(_: weakref.ref) -> None:
            self.now -= size
            del self._alive[key]

        return forget

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.add(t for t in tree_iter(out) if isinstance(t, torch.Tensor))
        if (formula := FLOPS.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


@dataclass(frozen=True)
class StepMemory:
    """One forward and backward pass, in bytes beyond parameters and buffers.

    Attributes:
        saved: kept between the two passes, with the input.
        peak: most that lives at a time, with the input and the gradients, if these are kept.
        flops: of both passes.
    """

    saved: int
    peak: int
    flops: int


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages of tensors, shared ones once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def step_memory(
    module: nn.Module, make_forward: Callable[[], Callable[[], torch.Tensor]], keep_gradients: bool = True
) -> StepMemory:
    """Measures a step of a module of fake tensors, in :func:`pretrain.common.planning.fake.fake_tensors`.

    Args:
        make_forward: makes the input and returns the forward pass over it, which returns the loss.
        keep_gradients: False counts none but those that are just being made.
    """
    module.zero_grad(set_to_none=True)
    storages = LiveStorages()
    storages.add([*module.parameters(), *module.buffers()])
    start, saved = storages.now, 0

    def forward() -> torch.Tensor:
        nonlocal saved
        loss = run()
        saved = storages.now - start
        return loss

    with storages:
        run = make_forward()
        run_backward(forward, keep_gradients)
    module.zero_grad(set_to_none=True)
    return StepMemory(saved, storages.peak - start, storages.flops)
