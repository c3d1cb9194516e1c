"""Masks of large images are the same ones, in bounded memory."""

import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from soaking.sandbox import Limits, run

from lazyrun.inference.predictor import Predictor
from lazyrun.modeling import encoded
from lazyrun.modeling.encoded import EncodedMasks, bounded_masks, encode_masks, place_mask


def raw(count):
    """What a model gives: boxes in an image of 100×80 pixels, and masks of 28×28 in them."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, generator=generator) * 40
    boxes = Boxes(torch.cat([corners, corners + 20 + torch.rand(count, 2, generator=generator) * 20], dim=1))
    masks = torch.rand(count, 1, 28, 28, generator=generator)
    scores = torch.linspace(1, 0, count)
    return Instances((100, 80), pred_boxes=boxes, scores=scores, pred_classes=torch.arange(count), pred_masks=masks)


def processed(count, height, width):
    with bounded_masks():
        return detector_postprocess(raw(count), height, width)


@pytest.mark.parametrize("place", [(0, 0), (3, 5), (10, 12)])
def test_placed_masks_are_those_of_the_padded_tensor(place):
    masks = [torch.rand(10, 8) > 0.5, torch.zeros(10, 8, dtype=torch.bool), torch.ones(10, 8, dtype=torch.bool)]
    for mask, rle in zip(masks, encode_masks(masks).rles, strict=True):
        padded = torch.zeros(20, 20, dtype=torch.bool)
        padded[place[0] : place[0] + 10, place[1] : place[1] + 8] = mask
        assert place_mask(rle, *place, 20, 20) == encode_masks([padded]).rles[0]


class AnyModel(Predictor):
    def __init__(self):
        self.categories = []


def test_encoded_masks_are_those_of_the_tensor(monkeypatch):
    plain = processed(5, 150, 120)
    monkeypatch.setattr(encoded, "LARGEST", 1000)
    found = processed(5, 150, 120)
    assert isinstance(plain.pred_masks, torch.Tensor) and isinstance(found.pred_masks, EncodedMasks)
    kept, expected = (instances[instances.scores >= 0.5].to("cpu") for instances in (found, plain))
    assert len(kept) == 3 and all(torch.equal(*pair) for pair in zip(kept.pred_masks, expected.pred_masks, strict=True))
    assert AnyModel().to_coco(kept, 1) == AnyModel().to_coco(expected, 1)
    assert len(found[1:3].pred_masks) == 2 and len(found[torch.tensor([4])].pred_masks) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="forked processes cannot use CUDA")
def test_many_objects_in_a_large_image_take_little_memory(monkeypatch):
    monkeypatch.setattr(encoded, "LARGEST", 1 << 26)

    def predict():
        assert len(AnyModel().to_coco(processed(100, 2000, 1600), 1)) == 100

    assert run(predict, Limits(seconds=600, silent=300, memory=200 << 20)).code == 0  # as a tensor it would be 320 MB
    monkeypatch.setattr(encoded, "LARGEST", 1 << 40)
    assert "memory" in run(predict, Limits(memory=200 << 20)).output
