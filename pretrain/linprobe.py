"""`python -m pretrain.linprobe`: a linear classifier on frozen features (MAE's recipe, arXiv:2111.06377, table 10)."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.optim import Lars
from torch import nn
from torch.utils.data import DataLoader

from pretrain.common.commands import run_command
from pretrain.common.distributed import World, in_world
from pretrain.data.labels import LabelledImages
from pretrain.data.samplers import ExactSampler
from pretrain.data.transforms import evaluation_transform, image_mode, train_transform
from pretrain.evaluation.accuracy import evaluate
from pretrain.evaluation.features import CachedFeatures, extract_features, pooled_features
from pretrain.models.classifier import ConvViT
from pretrain.training.classification import ClassificationLoss, ClassificationRun, evaluate_file
from pretrain.training.classification_args import parse_linprobe_args

__all__ = ["LinearProbe", "WorldBatchNorm1d", "add_probe_head", "lars", "run"]


class WorldBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm over the samples of all processes, for inputs that need no gradient.

    The published probe normalises each process's samples by themselves; so two processes would not equal one.
    """

    def __init__(self, num_features: int, world: World):
        super().__init__(num_features, affine=False, eps=1e-6)
        self.world = world

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features x `(B, C)`, normalised in float32."""
        x = x.float()
        if not self.training:
            return (x - self.running_mean) * (self.running_var + self.eps).rsqrt()
        mean = self.world.mean(x.mean(0))
        var = self.world.mean((x - mean).square().mean(0))
        count = len(x) * self.world.size
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * count / max(count - 1, 1), self.momentum)
        return (x - mean) * (var + self.eps).rsqrt()


def add_probe_head(model: ConvViT, world: World) -> None:
    """Freezes a model and puts a new head on it, under the names of the published probe."""
    head = nn.Linear(model.num_features, model.num_classes)
    trunc_normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    model.requires_grad_(False)
    model.head = nn.Sequential(WorldBatchNorm1d(model.num_features, world), head)


def lars(parameters: Sequence[torch.Tensor], lr: float) -> Lars:
    """LARS (arXiv:1708.03888) as in the published probe: momentum 0.9, trust coefficient 0.001, no weight decay, and
    no scaling of 1-D parameters."""
    matrices = dict(params=[p for p in parameters if p.ndim > 1], always_adapt=True)
    vectors = dict(params=[p for p in parameters if p.ndim <= 1], always_adapt=False)
    return Lars([matrices, vectors], lr=lr, momentum=0.9, trust_coeff=0.001)


class ProbeLogits(nn.Module):
    """Logits of images, or of features computed before; gradients reach the head alone."""

    def __init__(self, model: ConvViT):
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.ndim == 4:
            with torch.no_grad():
                inputs = pooled_features(self.model, inputs)
        return self.model.head(inputs)


class LinearProbe(ClassificationRun):
    """The trunk is frozen and in evaluation mode. Held-out features are computed once; those of training images too
    where there is no augmentation."""

    command = "linprobe"

    def build_classifier(self) -> ConvViT:
        model = super().build_classifier()
        add_probe_head(model, self.world)
        return model

    def training_images(self, reader: Any) -> LabelledImages:
        args = self.args
        if args.augment:
            transform = train_transform(tuple(args.input_size), args.in_chans, args.crop_min)
        else:
            transform = evaluation_transform(args.input_size, args.in_chans, args.crop_pct)
        return LabelledImages(reader, transform, args.seed, image_mode(args.in_chans), replace=args.augment)

    def make_loss_module(self) -> nn.Module:
        self.logits = ProbeLogits(self.model)
        return ClassificationLoss(self.logits, nn.CrossEntropyLoss())

    def make_optimizer(self) -> torch.optim.Optimizer:
        return lars(list(self.model.head.parameters()), self.args.lr)

    def set_training_mode(self) -> None:
        self.model.eval()
        self.model.head.train()

    def prepare(self) -> None:
        self.val_features = None

    def train(self) -> None:
        # Not earlier: the weights of a run that is resumed are in place by now.
        if not self.args.augment:
            sampler = self.loader.sampler
            cached = CachedFeatures(*self._features(self.train_images))
            self.loader = DataLoader(
                cached, self.args.batch_size, sampler=sampler, drop_last=True, generator=torch.Generator()
            )
        super().train()

    def _features(self, images: LabelledImages) -> tuple[torch.Tensor, torch.Tensor]:
        args = self.args
        return extract_features(
            self.model,
            images,
            args.batch_size,
            args.num_workers,
            self.world,
            self.device,
            self.stepper.precision.autocast,
        )

    def measure(self, model: ConvViT) -> dict[str, float]:
        model.eval()
        if self.val_features is None:
            cached = CachedFeatures(*self._features(self.val_images))
            sampler = ExactSampler(len(cached), self.world)
            self.val_features = DataLoader(cached, 4096, sampler=sampler, generator=torch.Generator())
        return evaluate(self.logits, self.val_features, self.world, self.device, self.stepper.precision.autocast)


def run(args: argparse.Namespace) -> None:
    """Trains a probe, or with `--eval` evaluates one, in this process: one of those torchrun started or the only one.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
        NonFiniteError: losses stayed non-finite.
    """
    if args.eval:
        in_world(
            args.device,
            lambda world, device: evaluate_file(args, world, device, lambda model: add_probe_head(model, world)),
        )
    else:
        in_world(args.device, lambda world, device: LinearProbe(args, world, device).train())


def main(argv: Sequence[str] | None = None) -> None:
    run_command(lambda: run(parse_linprobe_args(argv)))


if __name__ == "__main__":
    main()
