"""Whether a converted checkpoint fits the model that it was converted for, name by name."""

from collections.abc import Mapping, Sequence

import torch

from pretrain.checkpoints.kinds import Part
from pretrain.checkpoints.layouts import layout_of
from pretrain.checkpoints.recognition import Checkpoint, summarise
from pretrain.checkpoints.report import ConversionReport
from pretrain.common.errors import UserError

__all__ = ["check_names", "check_shapes"]


def check_names(
    state: Mapping[str, torch.Tensor],
    checkpoint: Checkpoint,
    shapes: Mapping[str, Sequence[int]],
    report: ConversionReport,
) -> None:
    """Checks that every tensor has a place in the model, and that no place stays empty that is not expected to.

    Args:
        state: the converted tensors by name.
        checkpoint: what they come from.
        shapes: every name and shape of the model.
        report: receives what is missing, and why.

    Raises:
        UserError: a tensor has no place, or a place has no tensor.
    """
    layout = layout_of(shapes)
    absent = [name for name in shapes if name not in state and name not in report.missing]
    # A whole segmentation model is expected to have all of it.
    reasons = {n: None if checkpoint.has(Part.SEGMENTOR) else layout.reason_missing(n) for n in absent}
    report.missing |= {name: reason for name, reason in reasons.items() if reason}
    problems = []
    if unexpected := [name for name in state if name not in shapes]:
        problems.append(f"the model has no {summarise(unexpected)}")
    if unexplained := [name for name, reason in reasons.items() if not reason]:
        problems.append(f"the file has nothing for {summarise(unexplained)}")
    if problems:
        raise UserError(f"{_does_not_fit(checkpoint)}: {'; '.join(problems)}. Give the config of this variant.")


def check_shapes(
    state: Mapping[str, torch.Tensor], checkpoint: Checkpoint, shapes: Mapping[str, Sequence[int]]
) -> None:
    """Raises UserError unless every tensor has the model's shape; names are those of :func:`check_names`."""
    differing = [name for name, tensor in state.items() if tuple(tensor.shape) != tuple(shapes[name])]
    if differing:
        first = differing[0]
        raise UserError(
            f"{_does_not_fit(checkpoint)}: {len(differing)} tensors differ in shape ({first} is "
            f"{tuple(state[first].shape)} in the file and {tuple(shapes[first])} in the model). "
            "Give the config of this variant."
        )


def _does_not_fit(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.source} ({checkpoint.kind.name}, {checkpoint.variant}) does not fit the model"
