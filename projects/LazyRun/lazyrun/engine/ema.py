"""`train.ema`: an exponential moving average of the weights, kept, evaluated and saved beside them."""

from detectron2.engine import HookBase
from timm.utils import ModelEmaV3
from torch import nn

from lazyrun.engine.checkpoint import RunCheckpointer

__all__ = ["WeightAverage"]


class WeightAverage(HookBase):
    """Averages the weights and buffers of a model over its steps (Polyak averaging, as timm's `ModelEmaV3`).

    Step `t`, counted from 1, moves the average by `1 - d` towards the weights, `d = min(decay, 1 - t ** (-2 / 3))`: the
    decay grows to its value, so that a short run is not held back by the weights that it began with. A decay of 0
    gives the weights themselves. The average is part of the run's checkpoints; at the end of the run it is written to
    `model_final_ema.pth` by itself, a file to evaluate, export and predict from like any other.

    Register it before the hooks that evaluate or save.

    Args:
        model: the trained model, not wrapped.
        decay: at least 0 and below 1.
    """

    FINAL = "model_final_ema"

    def __init__(self, model: nn.Module, decay: float, checkpointer: RunCheckpointer):
        self.source, self.decay, self.checkpointer = model, decay, checkpointer
        self.restored: dict | None = None

    def before_train(self) -> None:
        # Now the model has its initial weights, or those that it goes on with.
        self.average = ModelEmaV3(self.source, decay=self.decay, use_warmup=True)
        if self.restored is not None:
            self.average.module.load_state_dict(self.restored)

    @property
    def model(self) -> nn.Module:
        """The model with averaged weights, in evaluation mode."""
        return self.average.module

    def after_step(self) -> None:
        self.average.update(self.source, step=self.trainer.iter + 1)
        if self.trainer.iter + 1 == self.trainer.max_iter:
            self.save_final()

    def save_final(self) -> None:
        """Writes the averaged weights of a finished run."""
        self.checkpointer.save_weights(self.FINAL, self.model, iteration=self.trainer.max_iter - 1)

    def state_dict(self) -> dict:
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.restored = state["model"]
