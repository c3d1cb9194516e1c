"""Mixed precision, and the ladder of higher ones to climb when a loss is not finite."""

from typing import Any

import torch
from torch import nn

from pretrain.common.devices import AMP, autocast_of
from pretrain.common.errors import UserError

__all__ = ["Precision"]


class Precision:
    """Autocast and loss scaling at one rung of a ladder: as asked for, then with the decoder in float32, then all of
    it in float32. These are the ConvMAE authors' remedies for losses that are not finite, in their order.

    Args:
        amp: "bf16", "fp16" or "off".
        model: a model with a `fp32_decoder` attribute, which is set; other models lack the middle rung.
        fp32_decoder: start with the decoder in float32.
    """

    def __init__(self, amp: str, device: torch.device, model: nn.Module, fp32_decoder: bool = False):
        if amp not in AMP:
            raise UserError(f"--amp must be one of {', '.join(AMP)}, got {amp!r}.")
        self.device = device
        self.model: Any = model
        self.rungs = [(amp, fp32_decoder)]
        if amp != "off" and hasattr(model, "fp32_decoder"):
            self.rungs.append((amp, True))
        self.rungs.append(("off", fp32_decoder))
        self.rungs = list(dict.fromkeys(self.rungs))
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        self.set_level(0)

    def set_level(self, level: int) -> None:
        self.level = level
        self._autocast = autocast_of(self.rungs[level][0], self.device)
        if hasattr(self.model, "fp32_decoder"):
            self.model.fp32_decoder = self.rungs[level][1]

    @property
    def is_highest(self) -> bool:
        return self.level == len(self.rungs) - 1

    @property
    def scales_loss(self) -> bool:
        return self.rungs[self.level][0] == "fp16"

    def __str__(self) -> str:
        amp, fp32_decoder = self.rungs[self.level]
        return {"off": "fp32"}.get(amp, amp + (" with an fp32 decoder" if fp32_decoder else ""))

    def autocast(self) -> torch.autocast:
        return self._autocast()

    def state_dict(self) -> dict:
        return {"level": self.level, "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.set_level(min(state["level"], len(self.rungs) - 1))
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
