"""Detectors of fixed sizes find what detectron2's own inference finds, for every family."""

import pytest
import torch
from detectron2.modeling import GeneralizedRCNN
from tiny_models import DETECTORS, tiny_predictor

from lazyrun.export.detector import FixedSizeRCNN
from lazyrun.export.forms import apply_settings, detector_form
from lazyrun.export.operators import NOWHERE, nms_keep, pool_boxes
from lazyrun.onnx_runner.metadata import Metadata
from pretrain.common.errors import UserError


@pytest.mark.parametrize("family", DETECTORS)
def test_finds_what_the_eager_model_finds(family):
    predictor = tiny_predictor(family)
    form = detector_form(predictor)
    model, images = predictor.model, form.example
    with torch.no_grad():
        boxes, scores, classes, masks = form.module(images)
        expected = model.inference([{"image": image} for image in images], do_postprocess=False)
    assert min(map(len, expected)) > 20
    for n, eager in enumerate(expected):
        count = len(eager)
        assert torch.equal(boxes[n, :count], eager.pred_boxes.tensor)
        torch.testing.assert_close(scores[n, :count], eager.scores, rtol=0, atol=1e-6)
        assert torch.equal(classes[n, :count], eager.pred_classes)
        torch.testing.assert_close(masks[n, :count], eager.pred_masks[:, 0], rtol=0, atol=1e-6)
        assert not scores[n, count:].any() and (classes[n, count:] == -1).all()


def test_nothing_found_is_empty():
    predictor = tiny_predictor("ViTDet, ConvViT")
    predictor.model.roi_heads.box_predictor.test_score_thresh = 1.0
    form = detector_form(predictor)
    assert [tuple(out.shape) for out in form.module(form.example)] == [(2, 0, 4), (2, 0), (2, 0), (2, 0, 28, 28)]


def test_pooling_takes_each_box_from_its_own_level():
    model = tiny_predictor("ViTDet, ConvViT").model
    pooler = model.roi_heads.box_pooler
    features = [torch.rand(2, 3, side, side) for side in (128, 64, 32, 16)]
    corners = torch.rand(2, 30, 2) * 200
    boxes = torch.cat([corners, corners + torch.rand(2, 30, 2) * 300], -1)
    from detectron2.structures import Boxes

    assert torch.equal(pool_boxes(pooler, features, boxes), pooler(features, [Boxes(b) for b in boxes]))
    assert not pool_boxes(pooler, features, torch.full((2, 1, 4), NOWHERE)).any()


def test_suppression_in_groups():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10]])
    scores = torch.tensor([[0.5, 0.9, 0.2, 0.05], [0.5, 0.4, 0.05, 0.9]])
    keep = nms_keep(boxes.expand(2, 4, 4).contiguous(), scores, 0.7, 0.1)
    assert keep.tolist() == [[False, True, True, False], [False, False, False, True]]


def test_metadata_say_how_images_are_prepared():
    padded = Metadata.from_strings(detector_form(tiny_predictor("ConvMAE-FPN")).metadata, "x")
    assert [step["step"] for step in padded.resizing] == ["shortest_edge", "pad"] and padded.fixed_size
    predictor = tiny_predictor("MIMDet")
    free = Metadata.from_strings(detector_form(predictor, settings={"sample_ratio": 0.5}).metadata, "x")
    assert (free.settings, free.largest, free.fixed_size) == ({"sample_ratio": 0.5}, [64, 64], False)
    assert predictor.model.backbone.bottom_up.sample_ratio == 0.5
    assert free.thresholds == {"score": 0.05, "nms": 0.5, "detections_per_image": 100}
    assert len(free.normalisation["mean"]) == 3 and free.versions["torch"] == torch.__version__.split("+")[0]


def test_mistakes():
    predictor = tiny_predictor("demo")
    with pytest.raises(UserError, match="no setting 'sample_ratio' for its export; it has none"):
        apply_settings(predictor.model, {"sample_ratio": 0.5})
    with pytest.raises(UserError, match="--size 128: this model pads images to 64 pixels"):
        detector_form(predictor, square=128)
    with pytest.raises(UserError, match="--size 32: the test transform makes images of up to 62"):
        detector_form(tiny_predictor("MIMDet"), square=32)
    predictor.model.roi_heads.keypoint_on = True
    with pytest.raises(UserError, match="Heads for keypoints cannot be exported"):
        FixedSizeRCNN(predictor.model, 64)
    with pytest.raises(UserError, match="A Linear cannot be exported whole"):
        FixedSizeRCNN(torch.nn.Linear(1, 1), 64)
    assert isinstance(predictor.model, GeneralizedRCNN)
