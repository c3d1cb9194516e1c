"""What one kind of training defines, for the loop that all of them share (:mod:`pretrain.training.loop`)."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from pretrain.common.distributed import World
from pretrain.data.datasets import CorruptImages
from pretrain.training.logging import MetricWriter
from pretrain.training.step import Stepper

__all__ = ["TrainingHooks"]


class TrainingHooks:
    """Methods that a kind of training must define or may extend; the loop sets the first attributes, `build` the last.

    Attributes:
        args, world, device, output_dir: of the run.
        stepper: takes the optimizer steps.
        writer: where results go; in the main process only.
        epoch: epochs done.
        steps_done: optimizer steps done.
        model: the model, with the attribute `img_size`.
        loader: whole batches of this process, by a StatelessSampler.
        corrupt: unreadable images so far.
    """

    args: argparse.Namespace
    world: World
    device: torch.device
    output_dir: Path
    stepper: Stepper
    writer: MetricWriter
    epoch: int
    steps_done: int
    model: nn.Module
    loader: DataLoader
    corrupt: CorruptImages

    # What has to be defined

    def build(self) -> None:
        """Sets `model`, with its first weights, `loader` and `corrupt`."""
        raise NotImplementedError

    def load_initial_weights(self) -> None:
        """Loads `--init_weights` at the start of a new run."""
        raise NotImplementedError

    def make_loss_module(self) -> nn.Module:
        """A module that is called with a micro-batch and returns its mean loss."""
        raise NotImplementedError

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer; the learning rate of each group is scaled by its `lr_scale`, if it has one."""
        raise NotImplementedError

    def micro_batch(self, batch: Any) -> tuple[torch.Tensor, ...]:
        """What the loss module is called with, on the device, for a batch of the loader."""
        raise NotImplementedError

    def export_weights(self, state: dict) -> None:
        """Writes the weights that other programs start from; called in the main process after each checkpoint."""
        raise NotImplementedError

    # What may be extended

    def prepare(self) -> None:
        """Called once the model is on its device, before a checkpoint is restored."""

    def set_training_mode(self) -> None:
        self.model.train()

    def after_step(self) -> None:
        """Called after each optimizer step that was taken."""

    def evaluate(self) -> dict[str, float]:
        """Results of the epoch that has just ended, beside the training loss; called in every process."""
        return {}

    def picture(self) -> None:
        """Draws what there is to see after an epoch; called in the main process."""

    def extra_state(self) -> dict:
        """What else a checkpoint must hold."""
        return {}

    def check_state(self, state: dict) -> None:
        """Raises UserError for a checkpoint of another kind of run or of other data; called before it is loaded."""

    def restore_extra_state(self, state: dict) -> None:
        """Takes from a checkpoint what :meth:`extra_state` put there."""
