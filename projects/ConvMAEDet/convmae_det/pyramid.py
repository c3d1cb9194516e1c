"""ViTDet's simple feature pyramid for images of any shape."""

import math

from detectron2.data import transforms as T
from detectron2.modeling import SimpleFeaturePyramid
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from pretrain.errors import UserError

__all__ = ["FeaturePyramid", "check_padding"]


class FeaturePyramid(SimpleFeaturePyramid):
    """:class:`detectron2.modeling.SimpleFeaturePyramid` (arXiv:2203.16527) that also works with `square_pad=0`.

    Images are then padded to multiples of the coarsest map's stride instead of to a square; detectron2's class
    announces that stride under a misspelt name, so nothing is padded and the backbone refuses most images.
    """

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}


def check_padding(cfg: DictConfig) -> None:
    """Raises UserError if images for evaluation could be larger than the square or crop that they are padded to.

    detectron2 would cut them off at its edge without a word.
    """
    square, longest = cfg.model.get("backbone", {}).get("square_pad", 0), cfg.data.get("test_max_size") or 0
    if 0 < square < longest:
        raise UserError(
            f"data.test_max_size={longest} is larger than model.backbone.square_pad={square}, the square that images "
            "are padded to; add model.backbone.square_pad=0 to evaluate rectangles."
        )
    crop = _smallest_crop(cfg)
    if crop < longest:
        raise UserError(
            f"data.test_max_size={longest} is larger than the crop of {crop} in dataloader.test.mapper.augmentations, "
            "which images are padded to; leave data.test_max_size at that size."
        )


def _smallest_crop(cfg: DictConfig) -> float:
    """Shortest side in pixels of a fixed crop among the test augmentations, infinite without one."""
    augmentations = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations") or []
    nodes = [a for a in augmentations if isinstance(a, DictConfig) and "_target_" in a]
    targets = [(locate(a._target_) if isinstance(a._target_, str) else a._target_, a) for a in nodes]
    return min((min(a.crop_size) for target, a in targets if target is T.FixedSizeCrop), default=math.inf)
