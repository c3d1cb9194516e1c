"""What fine-tuning and the linear probe share: labelled images, the loss, and the results with their files."""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrain.checkpoints.classifier_weights import Classifier
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.files import save_atomically, save_json
from pretrain.common.sharding import full_weights
from pretrain.data.labelled import LabelledSamples, open_split
from pretrain.data.labels import LabelledSample, check_same_classes, class_names, take_fraction
from pretrain.data.pixels import images_on
from pretrain.data.video.datasets import ClipNotes, LabelledClip, LabelledClips
from pretrain.evaluation.accuracy import accuracy_line
from pretrain.evaluation.classifiers import describe, held_out_images

__all__ = ["ClassificationLoss", "Results", "Splits", "clip_notes", "noting_inputs", "open_splits"]

logger = logging.getLogger(__name__)


@dataclass
class Splits:
    """Labelled images of both splits.

    Attributes:
        train: timm's reader of the training images, or of the share of them that is used.
        held_out: the validation images as they are evaluated.
        classes: names of the classes, in order.
    """

    train: Any
    held_out: LabelledSamples
    classes: list[str]


def open_splits(args: argparse.Namespace) -> Splits:
    """Opens both splits and checks that they have the same classes.

    Raises:
        FileNotFoundError, UserError: data that cannot be used.
    """
    train = open_split(args, args.train_split)
    classes = class_names(train)
    held_out = held_out_images(args)
    check_same_classes(classes, class_names(held_out.reader), args.data_path)
    if args.label_fraction != 1:
        train = take_fraction(train, args.label_fraction, args.seed)
    return Splits(train, held_out, classes)


class ClassificationLoss(nn.Module):
    """A module whose `forward` is the loss of a model's logits, for DDP and compilers."""

    def __init__(self, model: Callable[[torch.Tensor], torch.Tensor], criterion: nn.Module):
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.criterion(self.model(inputs), targets)


def labelled_inputs(batch: LabelledSample | LabelledClip, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, or features, and labels on the device."""
    return images_on(batch.image, device), batch.label.to(device, non_blocking=True)


def clip_notes(images: LabelledSamples, world: World) -> list[ClipNotes]:
    """What takes note of peculiar videos, if the samples are clips; else nothing."""
    return [ClipNotes(images, world)] if isinstance(images, LabelledClips) else []


def noting_inputs(
    notes: Sequence[ClipNotes], device: torch.device
) -> Callable[[LabelledSample | LabelledClip], tuple[torch.Tensor, torch.Tensor]]:
    """:func:`labelled_inputs` of batches that the notes take note of."""

    def inputs(batch: LabelledSample | LabelledClip) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(batch, LabelledClip):
            for note in notes:
                note.add(batch)
        return labelled_inputs(batch, device)

    return inputs


class Results:
    """The accuracy of a run and its best epoch, which a checkpoint keeps, with their files.

    Args:
        command: names the file of the results.
        model: the classifier that is trained.
    """

    def __init__(self, args: argparse.Namespace, command: str, model: Classifier, splits: Splits, world: World):
        self.args, self.command, self.model, self.splits, self.world = args, command, model, splits, world
        self.output_dir = Path(args.output_dir)
        self.exported = self.output_dir / "classifier.pth"
        self.best: dict[str, float] = {"val_acc1": -1.0, "epoch": 0}

    def evaluate(
        self, epoch: int, measure: Callable[[nn.Module], dict[str, float]], average: nn.Module | None = None
    ) -> dict[str, float]:
        """Measures the model in every `--eval_epochs`-th epoch and the last one; writes the results, and the weights if
        they are the best so far.

        Args:
            epoch: epochs done.
            measure: accuracy and loss of a model on the held-out images.
            average: the model with averaged weights, which is measured as well.

        Returns:
            what was measured, under its names in the log.
        """
        if epoch % self.args.eval_epochs and epoch < self.args.epochs:
            return {}
        accuracy = measure(self.model)
        averaged = measure(average) if average is not None else {}
        also = {f"ema_{name}": value for name, value in averaged.items()}
        logger.info("%s", accuracy_line(accuracy))
        if accuracy["acc1"] > self.best["val_acc1"]:
            self.best = {"val_acc1": accuracy["acc1"], "epoch": epoch}
            if self.world.is_main:
                self.save_weights(full_weights(self.model), "classifier_best.pth", {"epoch": epoch})
        if self.world.is_main:
            facts = describe(self.args, self.command, len(self.splits.held_out), len(self.splits.classes))
            facts |= {"epoch": epoch, **accuracy, **also, "best": self.best}
            save_json(facts, self.output_dir / f"{self.command}.json")
        return {f"val_{name}": value for name, value in accuracy.items()} | also

    def save_weights(self, state_dict: Mapping[str, torch.Tensor], name: str, when: Mapping[str, int]) -> None:
        """Writes a file that `--eval` and `--init_weights` take; `when` names the epoch or step it is of."""
        content = {"model": state_dict, "args": vars(self.args), "classes": self.splits.classes, **when}
        save_atomically(content, self.output_dir / name)

    def export(self, state: Mapping[str, Any]) -> None:
        """Writes the weights of a checkpoint."""
        self.save_weights(state["model"], self.exported.name, {"step": state["step"]})

    def state_dict(self) -> dict[str, Any]:
        return {"classes": self.splits.classes, "best": self.best}

    def check(self, state: Mapping[str, Any]) -> None:
        if state["model"].keys() != self.model.state_dict().keys():
            raise UserError(
                f"The checkpoint is of another kind of run than pretrain.{self.command}; resume it with the command "
                "that wrote it, or start from its weights with --init_weights."
            )
        if state["classes"] != self.splits.classes:
            raise UserError(f"The run to resume has other classes than {self.args.data_path}; give the same data.")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = state["best"]
