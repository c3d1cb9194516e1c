"""`train.compile`: the backbone through torch.compile."""

import logging

import torch
from torch import nn

from pretrain.common.errors import UserError

__all__ = ["compile_backbone"]

logger = logging.getLogger(__name__)


def compile_backbone(model: nn.Module, choice: bool | str) -> None:
    """Compiles `model.backbone` in place, so that parameters and checkpoints keep their names.

    The heads stay as they are: their shapes change with every image's proposals. The backbone is compiled for one shape
    at a time, as most configs pad training images to one size; from the ninth shape on it runs uncompiled, which a
    warning says where the model does not pad to one size itself.

    Args:
        choice: a backend of `torch.compile`, True for inductor, False to compile nothing.

    Raises:
        UserError: there is no such backend.
    """
    if not choice:
        return
    backend = "inductor" if choice is True else choice
    backends = torch.compiler.list_backends()
    if backend not in (*backends, "eager", "aot_eager"):  # these two are for finding faults, and not listed
        raise UserError(f"train.compile={choice} is neither true, false, eager, aot_eager nor {', '.join(backends)}.")
    backbone = model.get_submodule("backbone")
    if not getattr(backbone, "padding_constraints", {}).get("square_size"):
        logger.warning(
            "train.compile: this model does not pad images to one size; the backbone is compiled for the first eight "
            "sizes that it meets, each of which takes a while, and runs uncompiled for all others."
        )
    backbone.compile(backend=backend, dynamic=False)
