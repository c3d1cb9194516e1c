"""What pretraining predicts: `--targets`, `--mimic` and the options that belong to them."""

import argparse
import math
import re
from argparse import _ArgumentGroup as Group  # argparse has no public name for it
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pretrain.common.errors import UserError
from pretrain.names import MIMIC, PIXELS

__all__ = ["EMA", "Target", "add_target_arguments", "check_target_arguments", "loss_weights", "parse_target"]

EMA = "ema"
"""The target that an average of the student's own encoder gives."""

KNOWN = {"clip": "vit_base_patch16_clip_quickgelu_224.openai", "dino": "vit_base_patch16_224.dino"}
"""Teachers of the published systems: CLIP's and DINO's ViT-B/16, by timm's names."""

FILES = (".pth", ".safetensors")
"""Suffixes of own encoders."""


class Target(NamedTuple):
    """One target, or the teacher of visible tokens.

    Attributes:
        name: in logs and parameter names.
        model: of timm; "" for pixels, the average and own encoders.
        file: an own encoder, or weights of `model`; "" for weights that timm downloads.
        text: as the user wrote it.
    """

    name: str
    model: str
    file: str
    text: str

    @property
    def needs_teacher(self) -> bool:
        return self.name != PIXELS

    @property
    def with_file(self) -> str:
        """How a user names a file with weights of `model`."""
        return f"{self.name}={self.model}@FILE"


def add_target_arguments(group: Group) -> None:
    group.add_argument(
        "--targets",
        nargs="+",
        default=[PIXELS],
        metavar="TARGET",
        help="what masked patches are predicted as: rgb (pixels), ema (features of an average of the encoder), clip, "
        "dino, NAME=MODEL for a model of timm, each with @FILE for its weights, NAME=encoder.pth for an own one [rgb]",
    )
    group.add_argument(
        "--target_weights", type=float, nargs="+", metavar="WEIGHT", help="of each target's loss [1 each]"
    )
    group.add_argument(
        "--mimic",
        default="",
        metavar="TEACHER",
        help="predict this teacher's features of visible patches from the encoder's output, as MR-MAE does: any of "
        "--targets but rgb [none]",
    )
    group.add_argument("--mimic_weight", type=float, metavar="WEIGHT", help="of that loss [1]")
    group.add_argument(
        "--ema_decay",
        type=float,
        nargs="+",
        metavar="DECAY",
        help="share of the average that a step keeps, at the start and at the end, with a half-cosine between; one "
        "number: throughout [0.996 1]",
    )


def parse_target(text: str) -> Target:
    """`rgb`, `ema`, `clip`, `dino`, `NAME=MODEL`, `NAME=encoder.pth`; all but the first two and the last with `@FILE`.

    Raises:
        UserError: the text is none of these.
    """
    head, _, file = text.partition("@")
    name, _, model = head.partition("=")
    if text in (PIXELS, EMA):
        return Target(name, "", "", text)
    if not re.fullmatch(r"[A-Za-z]\w*", name) or _is_taken(name):
        raise UserError(f"{text!r}: {name!r} cannot be a target's name; write a word such as clip in NAME=MODEL.")
    if name in (PIXELS, EMA):
        raise UserError(f"{text!r}: {name} takes no model and no file.")
    if "@" in text and not file:
        raise UserError(f"{text!r} names no file after the @.")
    if model.endswith(FILES):
        if file:
            raise UserError(f"{text!r} names two files; an own encoder is NAME=encoder.pth.")
        return Target(name, "", model, text)
    model = model.removeprefix("timm/") or KNOWN.get(name, "")
    if not model:
        raise UserError(
            f"{text!r} is no target: write {PIXELS}, {EMA}, {', '.join(KNOWN)}, NAME=MODEL with a model of timm, or "
            "NAME=encoder.pth."
        )
    return Target(name, model, file, text)


def _is_taken(name: str) -> bool:
    """Whether the heads of targets, a dict of modules by name, would confuse the name with something of their own."""
    from torch import nn

    return hasattr(nn.ModuleDict, name) or name == MIMIC


def check_target_arguments(args: argparse.Namespace) -> None:
    """Fills in the defaults, and raises UserError for what contradicts itself or has no effect."""
    targets = [parse_target(text) for text in args.targets]
    names = [target.name for target in targets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--targets names {twice} twice; give the second another name, as in {twice}2=MODEL.")
    if args.target_weights is None:
        args.target_weights = [1.0] * len(targets)
    if len(args.target_weights) != len(targets):
        raise UserError(f"--target_weights has {len(args.target_weights)} numbers for {len(targets)} --targets.")
    if args.mimic and parse_target(args.mimic).name == PIXELS:
        raise UserError("--mimic needs a teacher, and rgb has none: pixels are a target (--targets rgb).")
    if args.mimic_weight is not None and not args.mimic:
        raise UserError("--mimic_weight needs --mimic TEACHER.")
    args.mimic_weight = 1.0 if args.mimic_weight is None else args.mimic_weight
    for option, weights in (("target_weights", args.target_weights), ("mimic_weight", [args.mimic_weight])):
        if not all(0 <= weight < math.inf for weight in weights):
            raise UserError(f"--{option} must be at least 0, got {weights}.")
    if not any(args.target_weights) and not (args.mimic and args.mimic_weight):
        raise UserError("All weights are 0, so there is nothing to learn; raise one of --target_weights.")
    _check_ema(args, uses_ema=EMA in [*names, args.mimic])


def _check_ema(args: argparse.Namespace, uses_ema: bool) -> None:
    if args.ema_decay is not None and not uses_ema:
        raise UserError("--ema_decay needs the target ema (--targets rgb ema), or --mimic ema.")
    decays = [0.996, 1.0] if args.ema_decay is None else args.ema_decay
    if len(decays) > 2:
        raise UserError(f"--ema_decay takes one number, or one for the start and one for the end, got {decays}.")
    args.ema_decay = [decays[0], decays[-1]]
    if not all(0 <= decay <= 1 for decay in decays):
        raise UserError(f"--ema_decay must be at least 0 and at most 1, got {args.ema_decay}.")


def loss_weights(args: Mapping[str, Any]) -> dict[str, float]:
    """The weight of each loss by name, in order; of a run's arguments, those of earlier versions included."""
    texts: Sequence[str] = args.get("targets", [PIXELS])
    weights = dict(zip([parse_target(text).name for text in texts], args.get("target_weights", [1.0]), strict=True))
    return weights | ({MIMIC: args["mimic_weight"]} if args.get("mimic") else {})
