"""The training step: detectron2's, on any device and in any precision."""

import time

import torch
from detectron2.engine import SimpleTrainer
from torch import nn

__all__ = ["Trainer"]


class Trainer(SimpleTrainer):
    """:class:`detectron2.engine.SimpleTrainer` with optional mixed precision on CPU and GPU.

    A loss that is not finite ends the run before it reaches the weights.

    Args:
        model: gives a dict of losses for a batch.
        data_loader: endless loader of batches.
        optimizer: of the model's parameters.
        amp_dtype: precision of autocast, None for full precision; float16 comes with loss scaling.
    """

    def __init__(self, model: nn.Module, data_loader, optimizer, amp_dtype: torch.dtype | None = None):
        super().__init__(model, data_loader, optimizer)
        self.amp_dtype = amp_dtype
        self.device_type = next(model.parameters()).device.type
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=amp_dtype is torch.float16)

    def run_step(self) -> None:
        assert self.model.training, "the model was left in evaluation mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        with torch.autocast(self.device_type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        try:
            self._write_metrics(losses, data_time)
        except FloatingPointError as e:
            raise SystemExit(
                f"error: {str(e).splitlines()[0]} The last checkpoint is intact: continue from it with --resume, in "
                "train.amp.dtype=bfloat16 or train.amp.enabled=false, or at a lower optimizer.lr."
            ) from e
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def after_train(self) -> None:
        super().after_train()
        self._data_loader_iter_obj = None  # ends the loader's workers

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if state := state_dict["grad_scaler"]:  # empty after a run without loss scaling
            self.grad_scaler.load_state_dict(state)
