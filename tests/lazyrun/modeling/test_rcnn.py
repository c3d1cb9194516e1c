"""Predictions on images that the data pipeline has padded."""

import pytest
import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances

from lazyrun.modeling.rcnn import PaddedRCNN


@pytest.fixture
def model(monkeypatch) -> PaddedRCNN:
    """Finds one box, the upper half of a padded 64×64 image."""

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        assert not do_postprocess
        boxes = Boxes(torch.tensor([[0.0, 0.0, 64.0, 32.0]]))
        masks = torch.ones(1, 1, 28, 28)
        return [Instances((64, 64), pred_boxes=boxes.clone(), pred_masks=masks) for _ in batched_inputs]

    monkeypatch.setattr(GeneralizedRCNN, "inference", inference)
    module = PaddedRCNN(
        backbone=torch.nn.Identity(),
        proposal_generator=torch.nn.Identity(),
        roi_heads=torch.nn.Identity(),
        pixel_mean=[0.0],
        pixel_std=[1.0],
    )
    return module.eval()


def test_the_larger_ratio_scales_back(model):
    wide, tall = model([{"height": 100, "width": 200}, {"height": 256, "width": 64}])
    assert wide["instances"].image_size == (100, 200)
    assert wide["instances"].pred_boxes.tensor.tolist() == [[0, 0, 200, 100]]
    assert wide["instances"].pred_masks.shape == (1, 100, 200)
    assert wide["instances"].pred_masks[:, 4:96, 4:196].all()  # their borders are interpolated
    assert tall["instances"].pred_boxes.tensor.tolist() == [[0, 0, 64, 128]]  # cut at the image's border
    assert tall["instances"].pred_masks[:, 4:124].all() and not tall["instances"].pred_masks[:, 132:].any()


def test_without_an_original_size_nothing_is_scaled(model):
    assert model([{}])[0]["instances"].pred_boxes.tensor.tolist() == [[0, 0, 64, 32]]


def test_raw_results_for_test_time_augmentation(model):
    assert model.inference([{"height": 100, "width": 200}], do_postprocess=False)[0].image_size == (64, 64)
