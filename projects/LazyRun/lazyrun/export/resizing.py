"""The test transform of a config as plain data, for files that are used without this project."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from pretrain.common.errors import UserError

__all__ = ["resizing_steps"]


def resizing_steps(cfg: DictConfig) -> list[dict[str, Any]]:
    """What `dataloader.test.mapper.augmentations` does, as :mod:`lazyrun.onnx_runner.images` does it again.

    Augmentations of other packages say it themselves, by a method `export_step()`.

    Raises:
        UserError: an augmentation is random, or none that the runner knows.
    """
    nodes: Sequence = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations") or []
    return [_step(augmentation) for augmentation in instantiate(nodes)]


def _step(augmentation: Any) -> dict[str, Any]:
    if hasattr(augmentation, "export_step"):
        return augmentation.export_step()
    if isinstance(augmentation, T.ResizeShortestEdge):
        edges = set(augmentation.short_edge_length)
        if len(edges) == 1 and augmentation.interp == Image.Resampling.BILINEAR:
            return {"step": "shortest_edge", "short_edge": edges.pop(), "max_size": augmentation.max_size}
    if isinstance(augmentation, T.FixedSizeCrop) and augmentation.pad:
        height, width = augmentation.crop_size
        return {"step": "pad", "height": height, "width": width, "value": augmentation.pad_value}
    raise UserError(
        f"dataloader.test.mapper.augmentations: {augmentation} cannot be told to users of an exported file; "
        "ResizeShortestEdge of one size and FixedSizeCrop with padding can."
    )
