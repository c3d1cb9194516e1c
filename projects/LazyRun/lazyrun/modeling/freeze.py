"""`train.freeze`: parts of a model that keep their weights while the rest is trained."""

import logging
from collections.abc import Sequence

from torch import nn

from pretrain.common.errors import UserError

__all__ = ["freeze", "trunk_name"]

logger = logging.getLogger(__name__)

# Where detectron2's simple feature pyramid, MIMDet, detectron2's FPN and models without a pyramid keep it.
TRUNKS = ("backbone.net", "backbone.bottom_up.encoder", "backbone.bottom_up", "backbone")


def freeze(model: nn.Module, names: Sequence[str] | str | None) -> list[nn.Module]:
    """Excludes parts of a model from training: their parameters need no gradient.

    Args:
        model: not wrapped; call this before the optimizer is built.
        names: one or several of `trunk`, which is what pretraining gives; `stage1`, `stage2` and `stage3` of it where
            it has them; or any module or parameter by its name in the model's checkpoints, such as `backbone`.

    Returns:
        the frozen modules. Keep them in evaluation mode while the rest is trained: norms then leave their running
        statistics alone, and stochastic depth is off.

    Raises:
        UserError: there is no part of such a name, or nothing is left to train.
    """
    modules = []
    for name in [names] if isinstance(names, str) else names or ():
        for part in _parts(model, str(name)):
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                modules.append(part)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    if names and frozen == total:
        raise UserError(f"train.freeze={names} leaves nothing to train; freeze less, or evaluate with --eval-only.")
    if names:
        logger.info(f"Frozen: {frozen / 1e6:.2f} of {total / 1e6:.2f} M parameters ({names}).")
    return modules


def trunk_name(model: nn.Module) -> str | None:
    """The name of the module that pretraining gives, None if the model has no backbone."""
    modules = {name for name, _ in model.named_modules()}
    return next((name for name in TRUNKS if name in modules), None)


def _parts(model: nn.Module, name: str) -> list[nn.Module | nn.Parameter]:
    known: dict[str, nn.Module | nn.Parameter] = {**dict(model.named_parameters()), **dict(model.named_modules())}
    del known[""]
    if name in known:
        return [known[name]]
    trunk = trunk_name(model)
    stages = getattr(known.get(trunk), "STAGES", {}) if trunk else {}
    if trunk and name == "trunk":
        return [known[trunk]]
    if trunk and name in stages:
        return [known[key] for part in stages[name] if (key := f"{trunk}.{part}") in known]
    words = ", ".join(["trunk", *stages] if trunk else dict(model.named_children()))
    raise UserError(
        f"train.freeze: the model has no part {name!r}; there are {words}, and all modules and parameters by the names "
        "that they have in its checkpoints."
    )
