"""The parts of a linear probe: a head on the features of a frozen trunk (MAE, arXiv:2111.06377, table 10)."""

import argparse
from collections.abc import Callable, Sequence

import torch
from timm.layers import trunc_normal_
from timm.optim import Lars
from torch import nn
from torch.utils.data import DataLoader

from pretrain.checkpoints.classifier_weights import Classifier, load_trunk
from pretrain.common.distributed import World, in_world
from pretrain.common.errors import UserError
from pretrain.data.datasets import CorruptImages
from pretrain.data.labelled import LabelledSamples, probing_samples
from pretrain.data.samplers import eval_loader, train_loader
from pretrain.evaluation.accuracy import measure_accuracy
from pretrain.evaluation.classifiers import evaluate_classifier_file, make_classifier
from pretrain.evaluation.features import CachedFeatures, extract_features, pooled_features
from pretrain.training.classification import ClassificationLoss, Results, clip_notes, noting_inputs, open_splits
from pretrain.training.parts import TrainingParts
from pretrain.training.precision import Precision
from pretrain.training.run import train

__all__ = ["WorldBatchNorm1d", "add_probe_head", "lars", "probe_parts", "run"]

FEATURE_BATCH = 4096
"""Held-out features that the head classifies at a time."""


def run(args: argparse.Namespace) -> None:
    """Trains a probe, or with `--eval` evaluates one, in this process: one of those torchrun started or the only one.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
        NonFiniteError: losses stayed non-finite.
    """

    def evaluate(world: World, device: torch.device) -> None:
        evaluate_classifier_file(args, world, device, lambda model: add_probe_head(model, world))

    in_world(args.device, evaluate if args.eval else lambda world, device: train(args, world, device, probe_parts))


def probe_parts(args: argparse.Namespace, world: World, device: torch.device, initialise: bool) -> TrainingParts:
    """The parts of a linear probe.

    The trunk stays in evaluation mode. Features of held-out images, and without augmentation those of training images,
    are computed once, when the weights are in place.

    Args:
        args: those of `parse_linprobe_args`, with learning rate, precision and decoder filled in.
        initialise: load `--init_weights`.

    Raises:
        FileNotFoundError, UserError: arguments, data or weights that cannot be used.
    """
    splits = open_splits(args)
    model = make_classifier(args, len(splits.classes))
    head = add_probe_head(model, world)
    images = probing_samples(args, splits.train)
    loader = _training_loader(args, images, world, device)
    held_out = eval_loader(CachedFeatures(splits.held_out), FEATURE_BATCH, 0, world)
    if initialise:
        load_trunk(model, args.init_weights)
    model.to(device)
    precision = Precision(args.amp, device, model)
    results = Results(args, "linprobe", model, splits, world)
    logits = ProbeLogits(model)

    notes = clip_notes(images, world) if args.augment else []

    def extract(images: LabelledSamples) -> tuple[torch.Tensor, torch.Tensor]:
        return extract_features(model, images, args.batch_size, args.num_workers, world, device, precision.autocast)

    def accuracy_of(model: nn.Module) -> dict[str, float]:
        model.eval()
        return measure_accuracy(logits, held_out, world, device, precision.autocast)

    def evaluate(epoch: int) -> dict[str, float]:
        counts = {name: count for note in notes for name, count in note.counts().items()}
        return results.evaluate(epoch, accuracy_of) | counts

    return TrainingParts(
        model=model,
        loader=loader,
        corrupt=CorruptImages(images, args.max_corrupt),
        loss=ClassificationLoss(logits, nn.CrossEntropyLoss()),
        optimizer=lars(list(head.parameters()), args.lr),
        precision=precision,
        inputs=noting_inputs(notes, device),
        set_training_mode=logits.train_head,
        start=lambda: _fill_caches([loader, held_out], extract),
        evaluate=evaluate,
        export=results.export,
        exports=[results.exported],
        extras=[results, *notes],
    )


def _training_loader(
    args: argparse.Namespace, images: LabelledSamples, world: World, device: torch.device
) -> DataLoader:
    """Augmented images, or features that :meth:`CachedFeatures.fill` computes."""
    if args.augment:
        pin_memory, window = device.type == "cuda", args.shard_window
        return train_loader(images, args.batch_size, args.num_workers, world, pin_memory, shard_window=window)
    if args.shard_window:
        raise UserError("--no-augment reads images once, in their own order; leave out --shard_window.")
    return train_loader(CachedFeatures(images), args.batch_size, 0, world, pin_memory=False)


def _fill_caches(
    loaders: Sequence[DataLoader], extract: Callable[[LabelledSamples], tuple[torch.Tensor, torch.Tensor]]
) -> None:
    for loader in loaders:
        if isinstance(loader.dataset, CachedFeatures):
            loader.dataset.fill(extract)


class WorldBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm over the samples of all processes, for inputs that need no gradient.

    The published probe normalises each process's samples separately, so that two processes would not equal one.
    `torch.nn.SyncBatchNorm` refuses tensors on a CPU, and lazyrun's `PlainSyncBatchNorm` builds on detectron2, which
    nothing here needs.
    """

    def __init__(self, num_features: int, world: World):
        super().__init__(num_features, affine=False, eps=1e-6)
        self.world = world

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features x `(B, C)`, normalised in float32."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        x = x.float()
        if not self.training:
            return (x - self.running_mean) * (self.running_var + self.eps).rsqrt()
        mean = self.world.mean(x.mean(0))
        var = self.world.mean((x - mean).square().mean(0))
        count = len(x) * self.world.size
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * count / max(count - 1, 1), self.momentum)
        return (x - mean) * (var + self.eps).rsqrt()


def add_probe_head(model: Classifier, world: World) -> nn.Module:
    """Freezes a model, and puts on it and returns a new head, under the names of the published probe."""
    head = nn.Linear(model.num_features, model.num_classes)
    trunc_normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    model.requires_grad_(False)
    normalised = nn.Sequential(WorldBatchNorm1d(model.num_features, world), head)
    model.register_module("head", normalised)
    return normalised


def lars(parameters: Sequence[torch.Tensor], lr: float) -> Lars:
    """LARS (arXiv:1708.03888) as in the published probe: momentum 0.9, trust coefficient 0.001, no weight decay, and
    no scaling of 1-D parameters."""
    matrices = dict(params=[p for p in parameters if p.ndim > 1], always_adapt=True)
    vectors = dict(params=[p for p in parameters if p.ndim <= 1], always_adapt=False)
    return Lars([matrices, vectors], lr=lr, momentum=0.9, trust_coeff=0.001)


class ProbeLogits(nn.Module):
    """Logits of images or clips, or of features computed before; gradients reach the head alone."""

    def __init__(self, model: Classifier):
        super().__init__()
        self.model = model

    def train_head(self) -> None:
        """Puts the head alone into training mode."""
        self.model.eval()
        self.model.head.train()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.ndim > 2:
            with torch.no_grad():
                inputs = pooled_features(self.model, inputs)
        return self.model.head(inputs)
