"""Conversion between pretraining, classification, detection and segmentation checkpoints.

Trunks have the same parameter names everywhere; detectors put something in front, such as `backbone.net.`, which
:mod:`pretrain.checkpoints.layouts` knows. What differs is what stands around the trunk, and :data:`DROPPED` says for
each target which parts are left out, and why. Every tensor of a file is kept, renamed, resized or dropped for a
stated reason; anything else is an error.

Two numerical differences stay after a conversion (they are the published models'):

* The LayerNorms of the convolution blocks (`blocks1`, `blocks2`) use eps 1e-5 in pretraining and classification and
  1e-6 in detection. No weight records it.
* Pretraining's `norm` is applied to the sum of all three stages; detectors take the output of stage 3 without a norm.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from pretrain.checkpoints.checks import check_names, check_shapes
from pretrain.checkpoints.grids import grid_text, square_grid
from pretrain.checkpoints.kinds import NET_PREFIX, VIDEO, Part, Target
from pretrain.checkpoints.layouts import SEGMENTATION, layout_of
from pretrain.checkpoints.recognition import Checkpoint, recognise
from pretrain.checkpoints.report import ConversionReport
from pretrain.checkpoints.segmentation_weights import fit_segmentor
from pretrain.common.errors import UserError
from pretrain.models.pos_embed import resize_pos_embed

__all__ = ["Target", "check_loads", "convert", "convert_for", "target_for"]


_DETECTOR_ONLY = {
    Part.REL_POS: "relative positions exist in detection only",
    Part.PYRAMID: "part of the detector around the backbone",
    Part.DETECTOR: "part of the detector around the backbone",
}
_PRETRAINING_ONLY = {
    Part.STAGE_DECODE: "adds stages 1 and 2 to the input of the pretraining decoder",
    Part.DECODER: "predicts what is masked, in pretraining only",
}
_CLASSIFIER_ONLY = {
    Part.HEAD: "classification head",
    Part.HEAD_NORM: "norm of the classification head",
}
DROPPED: dict[Target, dict[Part, str]] = {
    Target.SEGMENTATION: {
        **_PRETRAINING_ONLY,
        **_DETECTOR_ONLY,
        **_CLASSIFIER_ONLY,
        Part.REL_POS: "the detector's, for rows and columns apart; segmentation has tables of its own",
        Part.NORM: "the backbone gives the last block's output without a norm",
        Part.CLS_TOKEN: "the backbone has no class token",
    },
    Target.DETECTION: {
        **_PRETRAINING_ONLY,
        **_CLASSIFIER_ONLY,
        Part.NORM: "the detector takes the last block's output without a norm",
        Part.CLS_TOKEN: "the detector has no class token",
    },
    Target.PRETRAIN: {
        **_DETECTOR_ONLY,
        Part.HEAD: "classification head",
        Part.HEAD_NORM: "norm of the classification head, not pretraining's, which sees the sum of three stages",
    },
    Target.CLASSIFIER: {
        **_DETECTOR_ONLY,
        **_PRETRAINING_ONLY,
        Part.NORM: "learned on the sum of three stages; the classifier has fc_norm on the mean token of the last",
    },
}

_DECODER_NAMES = ("mask_token", *(f"decoder_{name}" for name in ("embed", "pos_embed", "blocks", "norm", "pred")))
_PRETRAINING_NAMES = {
    "ConvViT": ("norm", "stage1_output_decode", "stage2_output_decode", *_DECODER_NAMES),
    VIDEO: ("norm", *_DECODER_NAMES),
    "ViT": ("cls_token", "norm", *_DECODER_NAMES),
    "ConvMAE-v2": ("cls_token", "norm", *_DECODER_NAMES),
}
_FC_NORM = "LayerNorm as finetuning begins it, ones and zeros"


def convert(
    checkpoint: Checkpoint, target: Target, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """Converts a recognised checkpoint.

    To detection and segmentation, the position embedding keeps its own grid unless `shapes` asks for another; one that
    is no square is resized to a square of about as many positions, which is what those models take it for. The class
    token's slot in it stays for plain ViT backbones (ViTDet's `pretrain_use_cls_token=True`) and goes for ConvViT ones,
    unless `shapes` says otherwise. Detectors stay as they are, and segmentation models are fitted to `shapes`.

    To a classifier, `fc_norm` is made where there is no classification norm: as in MAE's finetuning with global
    pooling, it is a new LayerNorm on the mean token. `head` is left to be initialised for the classes at hand. A class
    token (ConvMAE-v2) stays, with its slot in the positions and the norm that pretraining had on stage 3: a classifier
    that takes it needs all three, and one that has none leaves them out when it loads.

    To pretraining, everything a pretraining file has is kept, and the trunk alone of other files.

    Video files become video models; :func:`pretrain.checkpoints.inflation.inflate` makes them from image files.

    Args:
        checkpoint: what :func:`recognise` returns.
        target: what to convert to.
        shapes: every name and shape of the model that will load the result; to detection and segmentation only.

    Returns:
        the converted tensors by name, unchanged ones without a copy, and the report.

    Raises:
        UserError: there is no such conversion, or the result is not what `shapes` asks for.
    """
    _check_possible(checkpoint, target, shapes)
    report = ConversionReport(
        source=checkpoint.source,
        kind=checkpoint.kind.name,
        why=checkpoint.why,
        variant=checkpoint.variant,
        target=target.value,
        target_known=shapes is not None,
    )
    state = _rename(checkpoint, target, shapes, report)
    if shapes is not None:
        if checkpoint.kind.is_segmentor:
            fit_segmentor(state, shapes, report)
        check_names(state, checkpoint, shapes, report)
    if target is Target.PRETRAIN:
        _list_missing_in_pretraining(state, checkpoint, report)
    else:
        for name in [name for name in state if name.rpartition(".")[2] in ("pos_embed", "decoder_pos_embed")]:
            _fit_positions(name, state, checkpoint, target, shapes, report)
    if target in (Target.CLASSIFIER, Target.PRETRAIN) and "pos_embed" in state:
        _note_grid(checkpoint, report)
    if target is Target.CLASSIFIER:
        _complete_classifier(state, checkpoint, report)
    if shapes is not None:
        check_shapes(state, checkpoint, shapes)
    return state, report


def convert_for(
    shapes: Mapping[str, Sequence[int]], path: str | os.PathLike
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """Converts any checkpoint that :func:`recognise` knows for a model with these names and shapes.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file is no known checkpoint or does not fit the model.
    """
    return convert(recognise(path), target_for(shapes), shapes)


def target_for(names: Iterable[str]) -> Target:
    """What a detector or segmentation model with these parameter names has its weights converted to."""
    return Target.SEGMENTATION if layout_of(names) is SEGMENTATION else Target.DETECTION


def check_loads(model: nn.Module, state: Mapping[str, torch.Tensor], report: ConversionReport) -> None:
    """Loads a converted state dict into the model it was converted for.

    Raises:
        UserError: the model misses other tensors than the report says, or has no place for some.
    """
    result = model.load_state_dict(state, strict=False)
    # PyTorch fills in the counters of batch norms without saying so.
    expected = {name for name in report.missing if not name.endswith("num_batches_tracked")}
    differing = expected.symmetric_difference(n for n in result.missing_keys if not n.endswith("num_batches_tracked"))
    if result.unexpected_keys or differing:
        raise UserError(
            f"{report.source} does not load as reported: unexpected {result.unexpected_keys}, "
            f"missing otherwise than reported {sorted(differing)}."
        )


def _check_possible(checkpoint: Checkpoint, target: Target, shapes: Mapping[str, Sequence[int]] | None) -> None:
    family = checkpoint.kind.family
    if shapes is not None and target is not target_for(shapes):
        raise UserError(f"The model is one for {target_for(shapes).value}, not for {target.value}.")
    if family == "other" and target is not Target.DETECTION:
        raise UserError(
            f"{checkpoint.source} is a detectron2 checkpoint without {NET_PREFIX[:-1]}; only detectors with a ConvViT "
            f"or ViT under that name can be converted to {target.value}."
        )
    if family == VIDEO and target in (Target.DETECTION, Target.SEGMENTATION):
        raise UserError(f"{checkpoint.source} is a {checkpoint.kind.name}, and there is no {target.value} in clips.")
    if family == "ViT" and target in (Target.CLASSIFIER, Target.SEGMENTATION):
        models = "classifiers" if target is Target.CLASSIFIER else "segmentation models"
        raise UserError(f"{checkpoint.source} holds a plain ViT; there are {models} for ConvViT only.")
    if checkpoint.kind.is_segmentor and target is not Target.SEGMENTATION:
        raise UserError(
            f"{checkpoint.source} is a {checkpoint.kind.name}; its LayerScale and tables of relative positions are "
            f"part of what it computes and have no place in {target.value}."
        )


def _rename(
    checkpoint: Checkpoint, target: Target, shapes: Mapping[str, Sequence[int]] | None, report: ConversionReport
) -> dict[str, torch.Tensor]:
    """Every tensor under its new name; those left out are listed with the reason."""
    kind = checkpoint.kind
    stays = (target is Target.DETECTION and kind.is_detector) or (target is Target.SEGMENTATION and kind.is_segmentor)
    layout = SEGMENTATION if target is Target.SEGMENTATION else layout_of(shapes)
    has_layout = target in (Target.DETECTION, Target.SEGMENTATION)
    state = {}
    for name, tensor in checkpoint.tensors.items():
        original, part = checkpoint.original_names[name], checkpoint.parts[name]
        bare = name.removeprefix(kind.prefix)
        if stays:
            new, reason = name, None
        elif has_layout and part in layout.prefixes:
            new, reason = layout.prefixes[part] + bare, layout.reason_dropped(bare)
            if part is Part.DECODER and new not in (shapes or ()):
                reason = reason or "the detector's decoder has fewer blocks"
        else:
            new, reason = bare, DROPPED[target].get(part)
            if part is Part.NORM and target is Target.CLASSIFIER and checkpoint.has(Part.CLS_TOKEN):
                reason = None  # ConvMAE-v2's is on stage 3 alone, as the classifier's
        if reason:
            report.dropped[original] = reason
            continue
        state[new] = tensor
        if new == original:
            report.kept.append(new)
        else:
            report.renamed[original] = new
    report.dropped |= dict.fromkeys(checkpoint.extras, "not weights")
    return state


def _fit_positions(
    name: str,
    state: dict[str, torch.Tensor],
    checkpoint: Checkpoint,
    target: Target,
    shapes: Mapping[str, Sequence[int]] | None,
    report: ConversionReport,
) -> None:
    """Takes the class token's slot off a position embedding and resizes its grid where the target asks for it."""
    pos_embed = state[name]
    if target is Target.CLASSIFIER and (checkpoint.has(Part.CLS_TOKEN) or not checkpoint.may_have_slot):
        return  # they stay as they are, whatever their grid
    grid, has_slot = checkpoint.grid(pos_embed)
    keeps_slot = checkpoint.kind.family == "ViT" or (checkpoint.kind.is_detector and target is Target.DETECTION)
    # Classifiers know their grid; the others take it for a square.
    fitting = grid if target is Target.CLASSIFIER else (round(math.sqrt(math.prod(grid))),) * 2
    wanted = (fitting, has_slot and keeps_slot)
    if shapes is not None:
        wanted = square_grid(shapes[name][1])
    if wanted == (grid, has_slot):
        return
    if wanted[1] and not has_slot:
        raise UserError(
            f"{checkpoint.source} has {pos_embed.shape[1]} positions and none for a class token, which the model "
            "wants; set pretrain_use_cls_token=False in its config."
        )
    slot = pos_embed[:, : int(wanted[1])]
    resized = resize_pos_embed(pos_embed[:, int(has_slot) :], grid, wanted[0])
    state[name] = torch.cat([slot, resized], dim=1)
    changes = ["class token's slot dropped"] if has_slot and not wanted[1] else []
    changes += [f"grid {grid_text(grid)} resized to {grid_text(wanted[0])}"] if grid != wanted[0] else []
    report.resized[name] = f"{tuple(pos_embed.shape)} -> {tuple(state[name].shape)}, {', '.join(changes)}"


def _note_grid(checkpoint: Checkpoint, report: ConversionReport) -> None:
    """Notes a grid that is no square, which the positions keep: no later reader could tell it from their number."""
    name = next(name for name, part in checkpoint.parts.items() if part is Part.POS_EMBED)
    try:
        if checkpoint.kind.is_video:
            report.grid = grid_text(checkpoint.clip_grid(checkpoint.tensors[name]))
            return
        grid, _ = checkpoint.grid(checkpoint.tensors[name])
    except UserError:  # unknown here, and to be refused where it is needed
        return
    report.grid = None if grid[0] == grid[1] else grid_text(grid)


def _complete_classifier(state: dict[str, torch.Tensor], checkpoint: Checkpoint, report: ConversionReport) -> None:
    if not checkpoint.has(Part.HEAD_NORM):
        assert checkpoint.sizes is not None, "classifiers are made of trunks that are known"
        embed_dim = checkpoint.sizes.embed_dim[-1]
        state |= {"fc_norm.weight": torch.ones(embed_dim), "fc_norm.bias": torch.zeros(embed_dim)}
        report.made |= {"fc_norm.weight": _FC_NORM, "fc_norm.bias": _FC_NORM}
    if not checkpoint.has(Part.HEAD):
        report.missing |= dict.fromkeys(("head.weight", "head.bias"), "initialised for your classes")


def _list_missing_in_pretraining(
    state: Mapping[str, torch.Tensor], checkpoint: Checkpoint, report: ConversionReport
) -> None:
    present = {name.split(".")[0] for name in state}
    is_v2 = checkpoint.kind.family == "ConvViT" and checkpoint.has(Part.CLS_TOKEN)
    expected = _PRETRAINING_NAMES["ConvMAE-v2" if is_v2 else checkpoint.kind.family]
    absent = (name for name in expected if name not in present)
    report.missing |= dict.fromkeys(absent, "not in the file; pretraining initialises it")
