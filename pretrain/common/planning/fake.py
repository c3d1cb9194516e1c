"""Models on fake tensors: shapes, devices and types without values, for devices that need not be there.

PyTorch's `FakeTensorMode` runs any operator on them. Three things are added so that what runs is what a GPU would run:
autocast, which PyTorch disables where there is no GPU; fused attention, which it replaces by the plain one there; and
modules, which are built without filling their weights.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

__all__ = ["fake_tensors", "make_fake", "unfilled"]

RANDOM = {"uniform_", "normal_", "trunc_normal_", "erfinv_", "bernoulli_"}
FILLING = {"fill_", "zero_", "mul_", "add_", "clamp_", "div_", "sub_", "copy_"}
"""In-place functions that initialise weights: the first on any tensor, the others on parameters."""


class _Unfilled(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in RANDOM or name in FILLING:
            tensor = args[0] if args else kwargs.get("tensor")
            if name in RANDOM or isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


def unfilled(build: Callable[[], nn.Module]) -> nn.Module:
    """The module that `build` makes, its weights left as memory came: the system gives none for what nobody writes."""
    with _Unfilled():
        return build()


def make_fake(module: nn.Module, mode: FakeTensorMode, device: torch.device) -> nn.Module:
    """Replaces all parameters and buffers by fake ones on `device`, in place; shared ones stay shared."""
    known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            fake = mode.from_tensor(tensor).detach().to(device)
            if isinstance(tensor, nn.Parameter):
                fake = nn.Parameter(fake, tensor.requires_grad)
            known[id(tensor)] = (fake, tensor)  # held, so that its id is not used again
        return known[id(tensor)][0]

    for part in module.modules():
        groups: tuple[Any, ...] = (part._parameters, part._buffers)
        for tensors in groups:
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = convert(tensor)
    return module


class _FusedAttention(TorchFunctionMode):
    """The memory-efficient kernel for attention on a GPU: the one that takes all precisions and head dimensions.

    Flash attention keeps the same: queries, keys, values, the output and a number for each query.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args[0].device.type == "cuda":
            return _efficient_attention(*args, **kwargs)
        return func(*args, **kwargs)


def _efficient_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    if torch.is_autocast_enabled("cuda"):
        q, k, v = (t.to(torch.get_autocast_dtype("cuda")) for t in (q, k, v))
    keeps = torch.is_grad_enabled()
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, keeps, dropout_p, is_causal, scale=scale
    )[0]


@contextmanager
def fake_tensors(*, recompute_once: bool = False) -> Iterator[FakeTensorMode]:
    """A block of code in which tensors are fake, and a fake GPU runs what a real one would.

    Args:
        recompute_once: for :func:`pretrain.common.planning.backward.run_backward`, during which activation
            checkpointing must take all that it is asked for as part of one backward pass.
    """
    with (
        FakeTensorMode() as mode,
        _FusedAttention(),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        mock.patch("torch.cuda.is_bf16_supported", lambda *_, **__: True),
    ):
        if not recompute_once:
            yield mode
            return
        with mock.patch("torch._C._current_graph_task_id", lambda: 0):
            yield mode
