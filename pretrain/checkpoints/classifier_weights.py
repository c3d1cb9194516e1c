"""Weights for a classifier, from any file with a ConvViT in it: pretrained, fine-tuned, or a detector."""

import logging
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from pretrain.checkpoints.convert import Target, convert
from pretrain.checkpoints.grids import grid_text
from pretrain.checkpoints.inflation import ClipShape, inflate
from pretrain.checkpoints.kinds import VIDEO, Part
from pretrain.checkpoints.published import local_weights
from pretrain.checkpoints.recognition import Checkpoint, recognise
from pretrain.checkpoints.report import ConversionReport
from pretrain.checkpoints.trunk_sizes import TrunkSizes
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint
from pretrain.models.classifier import ConvViT
from pretrain.models.pos_embed import resize_pos_embed
from pretrain.models.video.classifier import VideoConvViT
from pretrain.models.video.positions import resize_clip_pos_embed

__all__ = ["Classifier", "check_file_classes", "load_classifier", "load_trunk"]

logger = logging.getLogger(__name__)

Classifier = ConvViT | VideoConvViT


def load_trunk(model: Classifier, source: str | os.PathLike | Mapping[str, Any], level: int = logging.INFO) -> None:
    """Loads everything but the head, which keeps its initialisation. For a video model, image files are inflated.

    With the first token in place of pooling, `norm` is the pretraining file's as in the published code, although it was
    learned on the sum of three stages; `fc_norm` begins as ones and zeros unless the file is a classifier's.

    Args:
        source: a file, the name or address of one (:func:`local_weights`), or what one holds, its tensors on the CPU.
        level: of the log messages that tell what became of every tensor.

    Raises:
        FileNotFoundError, UserError: the file is missing or damaged, or holds no trunk of this model's sizes.
    """
    checkpoint = recognise(source if isinstance(source, Mapping) else local_weights(source))
    state = _convert(model, checkpoint, level)
    norm = _norm_name(model)
    state = {name: t for name, t in state.items() if not name.startswith("head.")}
    _load(model, state, checkpoint.source, ("head.", f"{norm}."), level)


def load_classifier(model: Classifier, path: str | Path) -> None:
    """Loads a whole classifier, head included.

    Args:
        path: a file, or the name or address of one (:func:`local_weights`).

    Raises:
        FileNotFoundError, UserError: the file is missing or damaged, or is not this classifier.
    """
    checkpoint = recognise(local_weights(path))
    if not checkpoint.has(Part.HEAD):
        raise UserError(
            f"{path} has no classification head ({checkpoint.kind.name}); fine-tune it, or give a fine-tuned file."
        )
    _check_head(model, checkpoint, path)
    _load(model, _convert(model, checkpoint, logging.INFO), checkpoint.source, (), logging.INFO)


def check_file_classes(path: str | Path, classes: Sequence[str], data: str) -> None:
    """Compares the classes a classifier was trained on with those of the data.

    Files written here hold the names; others tell the number alone.

    Args:
        path: as of :func:`load_classifier`.
        classes: names, in order.
        data: what the data are called in messages.

    Raises:
        UserError: number, names or order differ.
    """
    file = local_weights(path)
    checkpoint = recognise(file)
    heads = [t for name, t in checkpoint.tensors.items() if checkpoint.parts[name] is Part.HEAD and t.ndim == 2]
    if heads and len(heads[-1]) != len(classes):
        raise UserError(f"{path} classifies {len(heads[-1])} classes, but {data} has {len(classes)}.")
    own = load_checkpoint(file).get("classes")
    if own and list(own) != list(classes):
        i = next(i for i, (a, b) in enumerate(zip(own, classes, strict=True)) if a != b)
        raise UserError(
            f"{path} was trained on other classes than those of {data}, or in another order: class {i} is {own[i]!r} "
            f"in the file and {classes[i]!r} in the data."
        )


def _norm_name(model: Classifier) -> str:
    return "fc_norm" if model.global_pool == "avg" else "norm"


def _check_head(model: Classifier, checkpoint: Checkpoint, path: str | Path) -> None:
    heads = {name for name in checkpoint.tensors if checkpoint.parts[name] is Part.HEAD}
    if heads != {name for name in model.state_dict() if name.startswith("head.")}:
        kind, module = ("a linear probe's", "linprobe") if "head.1.weight" in heads else ("a classifier's", "finetune")
        raise UserError(f"{path} has {kind} head ({', '.join(sorted(heads))}); evaluate it with pretrain.{module}.")
    if f"{_norm_name(model)}.weight" not in checkpoint.tensors:
        pools, flag = ("its first", "--cls_token") if model.global_pool == "avg" else ("the mean", "--global_pool")
        raise UserError(f"{path} was trained to classify {pools} token; evaluate it with {flag}.")


def _convert(model: Classifier, checkpoint: Checkpoint, level: int) -> dict[str, torch.Tensor]:
    """The file's tensors under the model's names, positions resized."""
    is_video = isinstance(model, VideoConvViT)
    state, report = convert(checkpoint, Target.CLASSIFIER)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    sizes = TrunkSizes.read(VIDEO if is_video else "ConvViT", shapes)
    found = checkpoint.sizes
    assert found is not None, "convert refuses files without a trunk"
    if isinstance(model, VideoConvViT) and not checkpoint.kind.is_video:
        state, report = inflate(checkpoint, Target.CLASSIFIER, ClipShape.of(model))
        found = found.inflated(model.tubelet_size, model.conv_frames)
    if found != sizes:
        raise UserError(
            f"{checkpoint.source} holds a {checkpoint.sizes} for {found.in_chans} channel(s), but the model is a "
            f"{sizes} for {sizes.in_chans}; give the --model, --patch_size, --mlp_ratio"
            f"{', --tubelet_size, --conv_frames' if is_video else ''} and --in_chans the file was made with."
        )
    _choose_norm(model, state, checkpoint, report)
    _choose_class_token(model, state, checkpoint, report)
    logger.log(level, "%s", report)
    if isinstance(model, VideoConvViT):
        _fit_clip_positions(model, state, checkpoint, level)
    elif "pos_embed" in state:
        state["pos_embed"] = _fit_positions(model, state["pos_embed"], checkpoint, level)
    return state


def _choose_norm(
    model: Classifier, state: dict[str, torch.Tensor], checkpoint: Checkpoint, report: ConversionReport
) -> None:
    """Leaves the norm that the model's pooling has, in place; without pooling it is that of pretraining."""
    if _norm_name(model) == "norm":
        norms = [name for name in checkpoint.tensors if checkpoint.parts[name] is Part.NORM]
        report.kept += [name for name in norms if name not in state]
        state |= {name: checkpoint.tensors[name] for name in norms}
        report.dropped = {name: why for name, why in report.dropped.items() if name not in norms}
    other = "fc_norm." if _norm_name(model) == "norm" else "norm."
    for name in [name for name in state if name.startswith(other)]:
        del state[name]
        if name in report.made:
            del report.made[name]
        else:
            report.dropped[report.take_back(name)] = f"the classifier has {_norm_name(model)}"


def _choose_class_token(
    model: Classifier, state: dict[str, torch.Tensor], checkpoint: Checkpoint, report: ConversionReport
) -> None:
    """Takes a class token away, in place, that the model does not have; raises UserError if it has one and the file
    has none."""
    if model.num_prefix_tokens and "cls_token" not in state:
        raise UserError(
            f"{checkpoint.source} ({checkpoint.kind.name}) has no class token, which convvitv2 models are for; give "
            "--model convvit_ in place of convvitv2_."
        )
    if not model.num_prefix_tokens and state.pop("cls_token", None) is not None:
        report.dropped[report.take_back("cls_token")] = "the model has none; --model convvitv2_... has"


def _fit_clip_positions(
    model: VideoConvViT, state: dict[str, torch.Tensor], checkpoint: Checkpoint, level: int
) -> None:
    """Resizes learned positions to the model's grid; fixed ones are the model's own."""
    if not model.pos_embed.requires_grad:
        state["pos_embed"] = model.pos_embed.detach()
        return
    file_positions = next(checkpoint.tensors[name] for name, part in checkpoint.parts.items() if part is Part.POS_EMBED)
    if checkpoint.kind.is_video:
        # Positions of this model's own number need no note of their grid.
        same = file_positions.shape == model.pos_embed.shape
        grid = model.clip_grid if same and not checkpoint.has_grid else checkpoint.clip_grid(file_positions)
    else:
        grid = (model.slots, *checkpoint.grid(file_positions)[0])
    if grid != model.clip_grid:
        message = "%s: pos_embed resized from a grid of %s to %s, bicubically in space and linearly in time."
        logger.log(level, message, checkpoint.source, grid_text(grid), grid_text(model.clip_grid))
    state["pos_embed"] = resize_clip_pos_embed(state["pos_embed"], grid, model.clip_grid)


def _fit_positions(model: ConvViT, pos_embed: torch.Tensor, checkpoint: Checkpoint, level: int) -> torch.Tensor:
    """Positions resized to the model's grid, after the class token's slot if the model has one; zeros if the file has
    none, as ConvMAE-v2's pretraining begins."""
    name = next(name for name, part in checkpoint.parts.items() if part is Part.POS_EMBED)
    grid, _ = checkpoint.grid(checkpoint.tensors[name])
    if grid != model.grid_size:
        message = "%s: pos_embed resized from a grid of %dx%d to %dx%d, bicubically."
        logger.log(level, message, checkpoint.source, *grid, *model.grid_size)
    slot, patches = pos_embed.tensor_split([pos_embed.shape[1] - prod(grid)], dim=1)
    patches = resize_pos_embed(patches, grid, model.grid_size)
    if not model.num_prefix_tokens:
        return patches
    return torch.cat([slot if slot.shape[1] else torch.zeros_like(patches[:, :1]), patches], dim=1)


def _load(
    model: Classifier, state: Mapping[str, torch.Tensor], source: str, may_miss: tuple[str, ...], level: int
) -> None:
    result = model.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if not (may_miss and name.startswith(may_miss))]
    if missing or result.unexpected_keys:
        raise UserError(f"{source} does not load: missing {missing}, unexpected {result.unexpected_keys}.")
    made = ", ".join(result.missing_keys) or "none"
    logger.log(level, "%s: %d tensors loaded; newly initialised: %s.", source, len(state), made)
