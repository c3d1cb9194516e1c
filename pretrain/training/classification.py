"""What fine-tuning and the linear probe share: labelled data, accuracy, the files they write, and `--eval`."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrain.checkpoints.classifier_weights import check_file_classes, load_classifier, load_trunk
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.files import save_atomically, save_json
from pretrain.data.datasets import CorruptImages
from pretrain.data.labels import (
    LabelledImages,
    LabelledSample,
    check_same_classes,
    class_names,
    open_labelled,
    take_fraction,
)
from pretrain.data.samplers import eval_loader, train_loader
from pretrain.data.transforms import evaluation_transform, image_mode
from pretrain.evaluation.accuracy import accuracy_line, evaluate
from pretrain.models import ConvViT, build_model
from pretrain.training.loop import TrainingRun
from pretrain.training.precision import Precision, default_amp
from pretrain.training.state import seed_everything

__all__ = ["ClassificationLoss", "ClassificationRun", "evaluate_file", "held_out_images", "make_classifier"]

logger = logging.getLogger(__name__)


class ClassificationLoss(nn.Module):
    """A module whose `forward` is the loss of a model's logits, for DDP and compilers."""

    def __init__(self, model: Callable[[torch.Tensor], torch.Tensor], criterion: nn.Module):
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.criterion(self.model(inputs), targets)


class ClassificationRun(TrainingRun):
    """Training of a classifier; subclasses say how.

    Attributes:
        command: names the file with the results.
        classes: names of the classes, in order.
        train_images, val_images: the data sets.
        best: `val_acc1` and `epoch` of the best evaluation so far.
    """

    command: str
    best: dict[str, float]

    def build(self) -> None:
        args = self.args
        train = open_labelled(args.data_path, args.train_split)
        self.classes = class_names(train)
        self.val_images = held_out_images(args)
        check_same_classes(self.classes, class_names(self.val_images.reader), args.data_path)
        if args.label_fraction != 1:
            train = take_fraction(train, args.label_fraction, args.seed)
        self.model = self.build_classifier()
        self.train_images = self.training_images(train)
        self.loader = train_loader(
            self.train_images, args.batch_size, args.num_workers, self.world, pin_memory=self.device.type == "cuda"
        )
        self.corrupt = CorruptImages(self.train_images, args.max_corrupt)
        self.val_loader = eval_loader(self.val_images, args.batch_size, args.num_workers, self.world)
        self.best = {"val_acc1": -1.0, "epoch": 0}

    def build_classifier(self) -> ConvViT:
        return make_classifier(self.args, len(self.classes))

    def training_images(self, reader: Any) -> LabelledImages:
        """The training images of a reader, as they are augmented."""
        raise NotImplementedError

    def load_initial_weights(self) -> None:
        load_trunk(self.model, self.args.init_weights)

    def micro_batch(self, batch: LabelledSample) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(t.to(self.device, non_blocking=True) for t in (batch.image, batch.label))

    def evaluate(self) -> dict[str, float]:
        if self.epoch % self.args.eval_epochs and self.epoch < self.args.epochs:
            return {}
        results = self.measure(self.model)
        also = self.measure_also()
        logger.info("%s", accuracy_line(results))
        if results["acc1"] > self.best["val_acc1"]:
            self.best = {"val_acc1": results["acc1"], "epoch": self.epoch}
            if self.world.is_main:
                save_atomically(self.weights_file(self.model.state_dict()), self.output_dir / "classifier_best.pth")
        if self.world.is_main:
            facts = describe(self.args, self.command, len(self.val_images), len(self.classes))
            facts |= {"epoch": self.epoch, **results, **also, "best": self.best}
            save_json(facts, self.output_dir / f"{self.command}.json")
        return {f"val_{name}": value for name, value in results.items()} | also

    def measure_also(self) -> dict[str, float]:
        """Further results of the held-out images, under their names."""
        return {}

    def measure(self, model: ConvViT) -> dict[str, float]:
        """Accuracy and loss on the held-out images."""
        model.eval()
        return evaluate(model, self.val_loader, self.world, self.device, self.stepper.precision.autocast)

    def weights_file(self, state_dict: dict[str, torch.Tensor]) -> dict:
        """Content of a file of weights, which `--eval` and `--init_weights` take."""
        return {"model": state_dict, "args": vars(self.args), "classes": self.classes}

    def export_weights(self, state: dict) -> None:
        save_atomically(self.weights_file(state["model"]), self.output_dir / "classifier.pth")

    def extra_state(self) -> dict:
        return {"classes": self.classes, "best": self.best}

    def check_state(self, state: dict) -> None:
        if state["model"].keys() != self.model.state_dict().keys():
            raise UserError(
                f"The checkpoint is of another kind of run than pretrain.{self.command}; resume it with the command "
                "that wrote it, or start from its weights with --init_weights."
            )
        if state["classes"] != self.classes:
            raise UserError(f"The run to resume has other classes than {self.args.data_path}; give the same data.")

    def restore_extra_state(self, state: dict) -> None:
        self.best = state["best"]


def make_classifier(args: argparse.Namespace, num_classes: int) -> ConvViT:
    return build_model(
        args.model,
        img_size=args.input_size,
        in_chans=args.in_chans,
        patch_size=args.patch_size,
        num_classes=num_classes,
        drop_path_rate=getattr(args, "drop_path", 0.0),
        global_pool=args.global_pool,
        act_checkpoint=args.act_checkpoint,
    )


def held_out_images(args: argparse.Namespace) -> LabelledImages:
    """The validation split as it is evaluated: without randomness, and an unreadable image is an error."""
    transform = evaluation_transform(args.input_size, args.in_chans, args.crop_pct)
    reader = open_labelled(args.data_path, args.val_split)
    return LabelledImages(reader, transform, args.seed, image_mode(args.in_chans), replace=False)


def describe(args: argparse.Namespace, command: str, images: int, classes: int) -> dict:
    """What a result was measured on, for its file."""
    names = ("model", "input_size", "global_pool", "data_path", "label_fraction", "init_weights", "seed")
    facts = {name: getattr(args, name) for name in names}
    return {"command": command, **facts, "images": images, "classes": classes}


def evaluate_file(
    args: argparse.Namespace, world: World, device: torch.device, add_head: Callable[[ConvViT], None] | None = None
) -> dict[str, float]:
    """Evaluates a classifier's file, prints its accuracy and writes `eval.json`.

    Args:
        add_head: puts another head on the model before its weights are loaded.

    Raises:
        FileNotFoundError, UserError: data or file cannot be used, or do not fit each other.
    """
    seed_everything(args.seed)
    path = args.init_weights or args.resume
    images = held_out_images(args)
    classes = class_names(images.reader)
    check_file_classes(path, classes, f"{args.data_path} ({args.val_split})")
    model = make_classifier(args, len(classes))
    if add_head:
        add_head(model)
    load_classifier(model, path)
    model.to(device).eval()
    autocast = Precision(args.amp or default_amp(device), device, model).autocast
    loader = eval_loader(images, args.batch_size, args.num_workers, world)
    results = evaluate(model, loader, world, device, autocast)
    logger.info("%s", accuracy_line(results))
    if world.is_main:
        output_dir = Path(args.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        save_json(
            describe(args, "eval", len(images), len(classes)) | {"weights": path, **results}, output_dir / "eval.json"
        )
    return results
