"""The parts of fine-tuning: all weights are trained, with learning rates that shrink from layer to layer."""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from timm.data import Mixup
from timm.layers import trunc_normal_
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn

from pretrain.checkpoints.classifier_weights import Classifier, load_trunk
from pretrain.common.distributed import World, in_world
from pretrain.data.datasets import CorruptImages
from pretrain.data.labelled import finetuning_samples
from pretrain.data.samplers import eval_loader, train_loader
from pretrain.evaluation.accuracy import measure_accuracy
from pretrain.evaluation.classifiers import evaluate_classifier_file, make_classifier
from pretrain.training.classification import ClassificationLoss, Results, clip_notes, noting_inputs, open_splits
from pretrain.training.parts import TrainingParts
from pretrain.training.precision import Precision
from pretrain.training.run import train

__all__ = ["finetuning_parts", "run"]


def run(args: argparse.Namespace) -> None:
    """Fine-tunes, or with `--eval` evaluates, in this process: one of those torchrun started or the only one.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
        NonFiniteError: losses stayed non-finite.
    """
    if args.eval:
        in_world(args.device, lambda world, device: evaluate_classifier_file(args, world, device))
    else:
        in_world(args.device, lambda world, device: train(args, world, device, finetuning_parts))


def finetuning_parts(args: argparse.Namespace, world: World, device: torch.device, initialise: bool) -> TrainingParts:
    """The parts of fine-tuning.

    Args:
        args: those of `parse_finetune_args`, with learning rate, precision and decoder filled in.
        initialise: load `--init_weights`, and begin with a head that is nearly zero.

    Raises:
        FileNotFoundError, UserError: arguments, data or weights that cannot be used.
    """
    splits = open_splits(args)
    model = make_classifier(args, len(splits.classes))
    images = finetuning_samples(args, splits.train)
    pin_memory, window = device.type == "cuda", args.shard_window
    loader = train_loader(images, args.batch_size, args.num_workers, world, pin_memory, shard_window=window)
    held_out = eval_loader(splits.held_out, args.batch_size, args.num_workers, world)
    mixup = _make_mixup(args, len(splits.classes))
    if initialise:
        _initialise(model, args.init_weights)
    model.to(device)
    precision = Precision(args.amp, device, model)
    results = Results(args, "finetune", model, splits, world)
    average = WeightAverage(model, args.model_ema, results) if args.model_ema else None
    exporters: list[Results | WeightAverage] = [results, average] if average else [results]
    notes = clip_notes(images, world)
    inputs = noting_inputs(notes, device)

    def evaluate(epoch: int) -> dict[str, float]:
        counts = {name: count for note in notes for name, count in note.counts().items()}
        return results.evaluate(epoch, accuracy_of, average.model if average else None) | counts

    def accuracy_of(model: nn.Module) -> dict[str, float]:
        return measure_accuracy(model.eval(), held_out, world, device, precision.autocast)

    def export(state: Mapping[str, Any]) -> None:
        for part in exporters:
            part.export(state)

    return TrainingParts(
        model=model,
        loader=loader,
        corrupt=CorruptImages(images, args.max_corrupt),
        loss=ClassificationLoss(model, _make_criterion(args)),
        optimizer=_make_optimizer(args, model, device),
        precision=precision,
        inputs=(lambda batch: mix(mixup, *inputs(batch))) if mixup else inputs,
        set_training_mode=model.train,
        start=average.start if average else None,
        after_step=average.update if average else None,
        evaluate=evaluate,
        export=export,
        exports=[part.exported for part in exporters],
        extras=[*exporters, *notes],
    )


def mix(mixup: Mixup, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixes images `(B, C, H, W)`, or clips `(B, C, F, H, W)` with the same rectangle in every frame."""
    mixed, targets = mixup(images.flatten(1, -3), labels)
    return mixed.view(images.shape), targets


def _initialise(model: Classifier, path: str) -> None:
    """Loads a pretrained trunk, beside a head that is nearly zero."""
    load_trunk(model, path)
    assert isinstance(model.head, nn.Linear)
    trunc_normal_(model.head.weight, std=2e-5)


def _make_mixup(args: argparse.Namespace, num_classes: int) -> Mixup | None:
    if not (args.mixup or args.cutmix):
        return None
    return Mixup(
        mixup_alpha=args.mixup,
        cutmix_alpha=args.cutmix,
        prob=args.mixup_prob,
        label_smoothing=args.smoothing,
        num_classes=num_classes,
    )


def _make_criterion(args: argparse.Namespace) -> nn.Module:
    if args.mixup or args.cutmix:
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(args.smoothing) if args.smoothing else nn.CrossEntropyLoss()


def _make_optimizer(args: argparse.Namespace, model: Classifier, device: torch.device) -> torch.optim.Optimizer:
    groups = param_groups_layer_decay(model, args.weight_decay, model.no_weight_decay(), layer_decay=args.layer_decay)
    return torch.optim.AdamW(groups, lr=args.lr, fused=device.type == "cuda")


class WeightAverage:
    """The exponential moving average of a model's weights, which a checkpoint keeps.

    Args:
        decay: share of the average that each step keeps.
        results: writes its weights.
    """

    def __init__(self, model: Classifier, decay: float, results: Results):
        self.source, self.results = model, results
        self.average = ModelEmaV3(model, decay=decay)
        self.exported = results.output_dir / "classifier_ema.pth"
        self.is_resumed = False

    @property
    def model(self) -> nn.Module:
        """The model with averaged weights."""
        return self.average.module

    def start(self) -> None:
        """Before the first step: the average begins as the model, which now has the first process's weights."""
        if not self.is_resumed:
            self.average.set(self.source)

    def update(self, _: float) -> None:
        """Takes up the weights after an optimizer step."""
        self.average.update(self.source)

    def export(self, state: Mapping[str, Any]) -> None:
        """Writes the averaged weights of a checkpoint."""
        self.results.save_weights(state["ema"], self.exported.name, {"step": state["step"]})

    def state_dict(self) -> dict[str, Any]:
        return {"ema": self.model.state_dict()}

    def check(self, state: Mapping[str, Any]) -> None:
        """A checkpoint of a run without an average does as well: it begins with the weights."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state.get("ema", state["model"]))
        self.is_resumed = True
