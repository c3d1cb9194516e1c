"""Devices: which can be used, their precisions, the memory a process has taken."""

import resource
import sys

import torch

from pretrain.common.errors import UserError

__all__ = ["AMP", "check_device", "peak_memory_bytes"]

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}
"""Precisions of autocast by their names on the command line."""


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
