"""Test-time augmentation as a choice of the config: `test.tta.enabled=true`."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNN, GeneralizedRCNNWithTTA
from omegaconf import DictConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lazyrun.modeling.rcnn import PaddedRCNN
from pretrain.common.errors import UserError

__all__ = ["ScaleAndFlip", "TestTimeAugmentation", "with_tta"]

UNLIMITED = 10**9  # pixels


def with_tta(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """The model itself, or under `test.tta.enabled` its predictions merged over scaled and flipped images.

    A model with a method `with_tta(scales, flip)` merges in its own way.

    Raises:
        UserError: the model has no such method and is no Mask or Faster R-CNN, or one for padded images, or there are
            no scales.
    """
    tta = cfg.test.tta
    if not tta.enabled:
        return model
    model = model.module if isinstance(model, DistributedDataParallel) else model
    own = getattr(model, "with_tta", None)
    if own is None and not isinstance(model, GeneralizedRCNN):
        raise UserError(f"test.tta.enabled: detectron2 augments R-CNN models alone, not {type(model).__name__}.")
    if isinstance(model, PaddedRCNN):
        raise UserError(
            "test.tta.enabled: this config's images are padded before they are scaled, and their boxes would be merged "
            "at the wrong place; it is for models that pad images themselves."
        )
    if not _are_scales(tta.scales):
        raise UserError(f"test.tta.scales={tta.scales} must be one or more positive numbers.")
    return own(tta.scales, tta.flip) if own else TestTimeAugmentation(model, ScaleAndFlip(tta.scales, tta.flip))


def _are_scales(scales: object) -> bool:
    return (
        isinstance(scales, Sequence)
        and len(scales) > 0
        and all(isinstance(s, int | float) and not isinstance(s, bool) and 0 < s < math.inf for s in scales)
    )


class ScaleAndFlip:
    """Copies of an input at several scales, each also mirrored.

    Args:
        scales: factors on the size that the test transform gives the image.
        flip: add a horizontally mirrored copy of each.
    """

    def __init__(self, scales: Sequence[float], flip: bool):
        self.scales, self.flip = list(scales), flip

    def __call__(self, sample: dict) -> list[dict]:
        """Inputs of the model in detectron2's format, each with the `transforms` that made it of the original image."""
        short = min(sample["image"].shape[-2:])
        sizes = [max(1, round(short * scale)) for scale in self.scales]
        return DatasetMapperTTA(sizes, UNLIMITED, self.flip)(sample)


class TestTimeAugmentation(GeneralizedRCNNWithTTA):
    """:class:`detectron2.modeling.GeneralizedRCNNWithTTA` for models of LazyConfigs: merges boxes, averages masks.

    Args:
        model: a Mask, Cascade or Faster R-CNN.
        augment: gives the inputs to merge over.
        batch_size: augmented images that go through the model at a time.
    """

    __test__ = False  # pytest takes the name for a test's

    def __init__(self, model: GeneralizedRCNN, augment: ScaleAndFlip, batch_size: int = 3):
        super().__init__(_settings(model), model, augment, batch_size)
        self.train(model.training)  # evaluating puts the mode of the outer module back into the inner one

    def _inference_one_image(self, sample: dict) -> dict:
        inputs = self.tta_mapper(sample)
        with _square_for(self.model.backbone, max(max(i["image"].shape[-2:]) for i in inputs)):
            return super()._inference_one_image(sample)


def _settings(model: GeneralizedRCNN) -> CfgNode:
    """What detectron2's class reads from a yacs config, taken from the model."""
    heads = model.roi_heads
    predictor = heads.box_predictor
    if isinstance(predictor, nn.ModuleList):  # cascade
        predictor = predictor[-1]
    return CfgNode(
        {
            "MODEL": {
                "KEYPOINT_ON": heads.keypoint_on,
                "LOAD_PROPOSALS": model.proposal_generator is None,
                "MASK_ON": heads.mask_on,
                "ROI_HEADS": {"NUM_CLASSES": predictor.num_classes, "NMS_THRESH_TEST": predictor.test_nms_thresh},
            },
            "TEST": {"DETECTIONS_PER_IMAGE": predictor.test_topk_per_image},
        }
    )


@contextmanager
def _square_for(backbone: Any, side: int) -> Iterator[None]:
    """Images larger than the square that ViTDet pads to would be cut off; for them it grows."""
    square = getattr(backbone, "_square_pad", 0)
    if 0 < square < side:
        stride = backbone._size_divisibility
        backbone._square_pad = -(-side // stride) * stride
    try:
        yield
    finally:
        if square:
            backbone._square_pad = square
