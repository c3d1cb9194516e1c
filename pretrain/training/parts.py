"""What a training run is made of: one function per task makes the parts, and one loop runs them."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader

from pretrain.common.distributed import World
from pretrain.data.datasets import CorruptImages
from pretrain.training.metrics import MetricWriter
from pretrain.training.precision import Precision

__all__ = ["MakeParts", "Stateful", "TrainingParts"]


class Stateful(Protocol):
    """What a task keeps in a checkpoint beside the model, the optimizer and the counters."""

    def state_dict(self) -> dict[str, Any]:
        """Its entries of the checkpoint."""

    def check(self, state: Mapping[str, Any]) -> None:
        """Raises UserError for a checkpoint of another kind of run or of other data, before anything is loaded."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes its entries from a checkpoint."""


@dataclass
class TrainingParts:
    """The parts of one task, as the loop (:mod:`pretrain.training.loop`) uses them; those that are None do nothing.

    Attributes:
        model: the model on its device; a checkpoint holds all of it.
        loader: whole batches of this process, from :func:`pretrain.data.samplers.train_loader`.
        corrupt: the unreadable images so far.
        loss: called with `inputs(batch)`, returns the mean loss of the micro-batch; with `loss_names` also, without
            gradient, the losses `(names,)` that it is made of.
        optimizer: the learning rate of each of its groups is scaled by the group's `lr_scale`, if it has one.
        precision: the mixed precision of training; evaluations use its autocast.
        inputs: from a batch of the loader to what `loss` is called with, on the device.
        set_training_mode: called before the steps of an epoch.
        export: from a checkpoint's content, writes the weights that other programs start from; main process only.
        exports: the files that `export` writes; each holds the `step` of the checkpoint.
        start: called once, before the first step, when weights of a resumed run are in place.
        loss_names: of the losses that are logged beside their sum.
        after_step: called after each optimizer step that was taken, with the share of the run that is done.
        evaluate_start: results of the weights that training begins with; called in every process, before the first
            step of a run that is not resumed.
        evaluate: from the number of epochs done to their results; called in every process after an epoch.
        draw: from the number of epochs done and a writer, draws what there is to see; main process only.
        extras: whatever else a checkpoint must hold.
    """

    model: nn.Module
    loader: DataLoader
    corrupt: CorruptImages
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    inputs: Callable[[Any], tuple[Any, ...]]
    set_training_mode: Callable[[], object]
    export: Callable[[Mapping[str, Any]], None]
    exports: Sequence[Path] = ()
    start: Callable[[], None] | None = None
    loss_names: Sequence[str] = ()
    after_step: Callable[[float], None] | None = None
    evaluate_start: Callable[[], dict[str, float]] | None = None
    evaluate: Callable[[int], dict[str, float]] | None = None
    draw: Callable[[int, MetricWriter], None] | None = None
    extras: Sequence[Stateful] = ()


MakeParts = Callable[[argparse.Namespace, World, torch.device, bool], TrainingParts]
"""From the arguments, the processes, the device, and whether to load `--init_weights`, to the parts of a task."""
