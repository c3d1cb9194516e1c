"""What a ConvViT detector is measured against: the published computation with the same weights."""

from torch import nn

from convmae_det.baselines import with_dense_backbone
from lazyrun.benchmarks.detector import Case
from lazyrun.benchmarks.models import checkpointed

__all__ = ["published_and_ours"]


def published_and_ours(model: nn.Module, case: Case) -> dict[str, nn.Module]:
    """The published computation where there is one, ours, and where the case asks for it ours with checkpointing.

    Raises:
        UserError: the model has a simple pyramid on something other than a ConvViT.
    """
    models = {"as published": with_dense_backbone(model)} if hasattr(model.backbone, "net") else {}
    models["ours"] = model
    if case.act_checkpoint and case.mode == "train":
        models["ours, checkpointed"] = checkpointed(model)
    return models
