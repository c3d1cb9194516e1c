"""Devices: which can be used, their precisions, the memory a process has taken."""

import resource
import sys
from collections.abc import Callable
from functools import partial

import torch

from pretrain.common.errors import UserError
from pretrain.common.precisions import PRECISIONS

__all__ = ["AMP", "autocast_of", "check_device", "default_amp", "peak_memory_bytes"]

AMP = dict(zip(PRECISIONS, (torch.bfloat16, torch.float16, None), strict=True))
"""What autocast computes in, by the names on the command line."""


def default_amp(device: torch.device) -> str:
    """bf16 on GPUs that have it, else no mixed precision."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "off"


def autocast_of(amp: str, device: torch.device) -> Callable[[], torch.autocast]:
    """What to enter for a block of code in mixed precision, of one of the names of :data:`AMP`."""
    return partial(torch.autocast, device.type, dtype=AMP[amp], enabled=AMP[amp] is not None)


def check_device(device: str) -> None:
    """Raises UserError unless tensors can be made on a device such as "cuda:1" or "cpu"."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        reason = str(e).strip().splitlines()[0] if str(e) else type(e).__name__
        raise UserError(f"Device {device} cannot be used: {reason} Leave it out, or name cpu.") from e


def peak_memory_bytes(device: torch.device) -> int:
    """Highest GPU memory allocated, or on a CPU the highest resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
