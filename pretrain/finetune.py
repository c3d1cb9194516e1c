"""`python -m pretrain.finetune`: fine-tune a pretrained ConvViT on labelled images (MAE's recipe, arXiv:2111.06377)."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from timm.data import Mixup
from timm.layers import trunc_normal_
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn

from pretrain.common.commands import run_command
from pretrain.common.distributed import in_world
from pretrain.common.files import save_atomically
from pretrain.data.augmentation import finetune_transform
from pretrain.data.labels import LabelledImages, LabelledSample
from pretrain.data.transforms import image_mode
from pretrain.training.classification import ClassificationLoss, ClassificationRun, evaluate_file
from pretrain.training.classification_args import parse_finetune_args

__all__ = ["FineTuning", "run"]


class FineTuning(ClassificationRun):
    """All weights are trained, with learning rates that shrink from layer to layer."""

    command = "finetune"

    def build(self) -> None:
        super().build()
        args = self.args
        self.mixup = None
        if args.mixup or args.cutmix:
            self.mixup = Mixup(
                mixup_alpha=args.mixup,
                cutmix_alpha=args.cutmix,
                prob=args.mixup_prob,
                label_smoothing=args.smoothing,
                num_classes=len(self.classes),
            )

    def training_images(self, reader: Any) -> LabelledImages:
        args = self.args
        transform = finetune_transform(
            args.input_size, args.in_chans, args.aa, args.crop_min, args.color_jitter, args.reprob
        )
        return LabelledImages(reader, transform, args.seed, image_mode(args.in_chans))

    def load_initial_weights(self) -> None:
        super().load_initial_weights()
        trunc_normal_(self.model.head.weight, std=2e-5)

    def make_loss_module(self) -> nn.Module:
        smoothing = self.args.smoothing
        hard = LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
        return ClassificationLoss(self.model, SoftTargetCrossEntropy() if self.mixup else hard)

    def make_optimizer(self) -> torch.optim.Optimizer:
        args = self.args
        groups = param_groups_layer_decay(
            self.model, args.weight_decay, self.model.no_weight_decay(), layer_decay=args.layer_decay
        )
        return torch.optim.AdamW(groups, lr=args.lr, fused=self.device.type == "cuda")

    def micro_batch(self, batch: LabelledSample) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = super().micro_batch(batch)
        return self.mixup(images, labels) if self.mixup else (images, labels)

    def prepare(self) -> None:
        self.ema = ModelEmaV3(self.model, decay=self.args.model_ema) if self.args.model_ema else None

    def after_step(self) -> None:
        if self.ema:
            self.ema.update(self.model)

    def measure_also(self) -> dict[str, float]:
        if not self.ema:
            return {}
        return {f"ema_{name}": value for name, value in self.measure(self.ema.module).items()}

    def export_weights(self, state: dict) -> None:
        super().export_weights(state)
        if self.ema:
            save_atomically(self.weights_file(state["ema"]), self.output_dir / "classifier_ema.pth")

    def extra_state(self) -> dict:
        return super().extra_state() | ({"ema": self.ema.module.state_dict()} if self.ema else {})

    def restore_extra_state(self, state: dict) -> None:
        super().restore_extra_state(state)
        if self.ema:
            self.ema.module.load_state_dict(state.get("ema", state["model"]))


def run(args: argparse.Namespace) -> None:
    """Fine-tunes, or with `--eval` evaluates, in this process: one of those torchrun started or the only one.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
        NonFiniteError: losses stayed non-finite.
    """
    if args.eval:
        in_world(args.device, lambda world, device: evaluate_file(args, world, device))
    else:
        in_world(args.device, lambda world, device: FineTuning(args, world, device).train())


def main(argv: Sequence[str] | None = None) -> None:
    run_command(lambda: run(parse_finetune_args(argv)))


if __name__ == "__main__":
    main()
