"""Pretraining files as the beginning of a detector or segmentation model: converted while they are loaded."""

import logging

from torch import nn

from pretrain.checkpoints.convert import Target, check_loads, convert, target_for
from pretrain.checkpoints.layouts import find_layout
from pretrain.checkpoints.recognition import recognise
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint

__all__ = ["load_pretrained"]

logger = logging.getLogger(__name__)


def load_pretrained(model: nn.Module, path: str, strict: bool) -> bool:
    """Loads a pretraining file, a classifier or a bare trunk into a model of this family, and logs what became of it.

    Segmentation models take their own files this way too, as those may be for images of another size.

    Args:
        model: any model; those without a ConvViT or ViT that pretraining knows are left alone.
        path: a checkpoint file.
        strict: every weight of the model must be in the file, as an evaluation needs.

    Returns:
        whether the file was loaded; a detector's file for a detector, which needs no conversion, is not.

    Raises:
        UserError: the file is no known checkpoint, does not fit the model, or lacks some of it under `strict`.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if find_layout(shapes) is None:
        return False
    target = target_for(shapes)
    if target is Target.DETECTION and _is_detector(path):
        return False
    state, report = convert(recognise(path), target, shapes)
    if strict and report.missing:
        name, reason = next(iter(report.missing.items()))
        model_name = "detector" if target is Target.DETECTION else "segmentation model"
        raise UserError(
            f"{path} ({report.kind}) lacks {len(report.missing)} weights of the {model_name}, such as {name} "
            f"({reason}): train it first, an evaluation needs all of them."
        )
    check_loads(model, state, report)
    logger.info(f"Converted for this model:\n{report}")
    return True


def _is_detector(path: str) -> bool:
    content = load_checkpoint(path)
    names = content.get("model", content) if isinstance(content, dict) else ()
    return any(name.removeprefix("module.").startswith("backbone.") for name in names)
