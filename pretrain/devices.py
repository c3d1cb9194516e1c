"""What tensors can be made on."""

import torch

from pretrain.errors import UserError

__all__ = ["check_device"]


def check_device(device: str) -> None:
    """Raises UserError unless tensors can be made on a device such as "cuda:1" or "cpu"."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        reason = str(e).strip().splitlines()[0] if str(e) else type(e).__name__
        raise UserError(f"Device {device} cannot be used: {reason} Leave it out, or name cpu.") from e
