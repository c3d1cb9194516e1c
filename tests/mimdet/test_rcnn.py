"""The backbone gets the true sizes in training and evaluation, and detectron2's own code does the rest."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from parity import REPO

from lazyrun.config.loading import load_config


@pytest.fixture
def detector():
    """The tiny MIMDet, and what its backbone was given."""
    model = instantiate(load_config(str(REPO / "projects/MIMDet/configs/shapes/mimdet_tiny.py")).model)
    given = []
    model.backbone.bottom_up.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    return model, given


def batch() -> list[dict]:
    sizes = ((48, 64), (64, 40))
    return [{"image": torch.randint(0, 256, (3, *size), dtype=torch.uint8)} for size in sizes]


def test_evaluation(detector):
    model, given = detector
    outputs = model.eval()([x | {"height": 96, "width": 128} for x in batch()])
    assert isinstance(given[0], ImageList) and given[0].image_sizes == [(48, 64), (64, 40)]
    assert given[0].tensor.shape == (2, 3, 64, 64)
    assert [output["instances"].image_size for output in outputs] == [(96, 128)] * 2
    raw = model.inference(batch(), do_postprocess=False)
    assert [result.image_size for result in raw] == [(48, 64), (64, 40)]


def test_training(detector):
    model, given = detector
    inputs = batch()
    for x in inputs:
        size = tuple(x["image"].shape[1:])
        x["instances"] = Instances(
            size,
            gt_boxes=Boxes(torch.tensor([[4.0, 4.0, 30.0, 30.0]])),
            gt_classes=torch.tensor([1]),
            gt_masks=BitMasks(torch.ones(1, *size, dtype=torch.bool)),
        )
    with EventStorage():
        losses = model.train()(inputs)
    sum(losses.values()).backward()
    assert given[0].image_sizes == [(48, 64), (64, 40)]
    for name, p in model.backbone.bottom_up.named_parameters():
        assert not p.requires_grad or p.grad.isfinite().all(), name
