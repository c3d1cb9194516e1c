"""The targets of a pretraining run: its teachers, the loss they make, and what of them a checkpoint keeps."""

import argparse
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pretrain.checkpoints.encoder_file import load_network
from pretrain.common.errors import UserError
from pretrain.common.seeding import seeded_torch
from pretrain.data.pixels import normalisation
from pretrain.models.autoencoder import MaskedAutoencoderConvViT, ReconstructionLoss
from pretrain.models.mixture import MixtureLoss, add_target_heads
from pretrain.models.teachers import EmaTeacher, Teacher, convvit_teacher, ema_decay, timm_teacher
from pretrain.names import MIMIC, PIXELS
from pretrain.training.target_args import EMA, Target, loss_weights, parse_target

__all__ = ["Targets"]

logger = logging.getLogger(__name__)


class Targets:
    """What a run's model predicts. With pixels alone it is the published model, and everything here does nothing.

    Gives the model the heads of its targets, so it is made before weights are loaded; :meth:`make_loss` comes after.

    Args:
        args: those of :func:`pretrain.training.target_args.add_target_arguments`, checked, and `seed`.
        model: the student, as it was built.

    Raises:
        FileNotFoundError, UserError: a teacher, or its weights, that cannot be had.
    """

    def __init__(self, args: argparse.Namespace, model: MaskedAutoencoderConvViT):
        self.args, self.model = args, model
        self.weights = loss_weights(vars(args))
        self.targets = {name: parse_target(text) for name, text in zip(self.weights, args.targets, strict=False)}
        if args.mimic:
            self.targets[MIMIC] = parse_target(args.mimic)
        self.students = normalisation(model.in_chans)
        self.foreign: dict[tuple[str, str], Teacher] = {}
        self.average: EmaTeacher | None = None
        self.is_resumed = False
        with seeded_torch(args.seed):  # random weights that files replace must not move other draws
            for name, target in self.targets.items():
                if target.needs_teacher and target.name != EMA and _source(target) not in self.foreign:
                    self.foreign[_source(target)] = self._open(target, "--mimic" if name == MIMIC else "--targets")
        dims = {name: self._dim(target) for name, target in self.targets.items()}
        mimic_dim = dims.pop(MIMIC, None)
        add_target_heads(model, dims, mimic_dim)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Of the losses that are logged apart; none if the total is all there is."""
        return () if self.weights == {PIXELS: 1.0} else tuple(self.weights)

    @property
    def has_pixels(self) -> bool:
        """Whether the model can reconstruct images."""
        return PIXELS in self.weights

    def _open(self, target: Target, option: str) -> Teacher:
        if target.model:
            teacher = timm_teacher(target.model, target.file, self.students, f"{option} {target.with_file}")
            logger.info("Teacher %s: timm's %s, %d channels.", target.name, target.model, teacher.dim)
            return teacher
        network = load_network(target.file)
        if network.in_chans != self.model.in_chans:
            raise UserError(
                f"{target.file} takes images of {network.in_chans} channel(s), the model of {self.model.in_chans}; "
                "give an encoder of the same --in_chans."
            )
        return convvit_teacher(network, self.students)

    def _dim(self, target: Target) -> int | None:
        if not target.needs_teacher:
            return None
        return self.model.embed_dim[2] if target.name == EMA else self.foreign[_source(target)].dim

    def make_loss(self, device: torch.device) -> nn.Module:
        """What is trained, once the model has its weights and is on its device."""
        if not self.loss_names:
            return ReconstructionLoss(self.model)
        if any(target.name == EMA for target in self.targets.values()):
            self.average = EmaTeacher(self.model, self.students)
        teachers = {
            name: self._teacher(target).to(device) for name, target in self.targets.items() if target.needs_teacher
        }
        return MixtureLoss(self.model, self.weights, teachers)

    def _teacher(self, target: Target) -> Teacher:
        if target.name == EMA:
            assert self.average is not None, "it is made where a target needs it"
            return self.average
        return self.foreign[_source(target)]

    def start(self) -> None:
        """Before the first step: the average begins as the student, which now has the first process's weights."""
        if self.average and not self.is_resumed:
            self.average.update(self.model, 0.0)

    def after_step(self, progress: float) -> None:
        """Updates the average after an optimizer step, when a share `progress` of the run is done."""
        if self.average:
            self.average.update(self.model, ema_decay(progress, *self.args.ema_decay))

    def state_dict(self) -> dict[str, Any]:
        return {"ema_teacher": self.average.network.state_dict()} if self.average else {}

    def check(self, state: Mapping[str, Any]) -> None:
        """Nothing: runs of other targets are refused by their arguments."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.is_resumed = True
        if self.average:
            self.average.network.load_state_dict(state["ema_teacher"])


def _source(target: Target) -> tuple[str, str]:
    """What tells whether two targets have the same teacher."""
    return target.model, target.file
