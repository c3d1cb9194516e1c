"""Sliced prediction finds what a detector that looks at nothing but the object itself finds in the whole image."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from shapes import CONFIG, REPO
from tiny_models import pictures, tiny_predictor
from torch import nn

from lazyrun.config.loading import load_config
from lazyrun.data.original import ORIGINAL
from lazyrun.modeling import slicing as module
from lazyrun.modeling.encoded import EncodedMasks
from lazyrun.modeling.slicing import SlicedModel, with_slices
from lazyrun.slices import Slicing
from pretrain.common.errors import UserError

SIDE = 40


class Blocks(nn.Module):
    """Finds the visible part of every block of one grey value; the smaller it is, the better its score."""

    def forward(self, inputs):
        return [{"instances": self.find(sample["image"][0])} for sample in inputs]

    def find(self, image):
        values = image.unique()
        values = values[values > 0]
        masks = image[None] == values[:, None, None]
        found = Instances(tuple(image.shape))
        rows, columns = (([m.nonzero()[:, axis] for m in masks]) for axis in (0, 1))
        sides = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for x, y in zip(columns, rows, strict=True)]
        found.pred_boxes = Boxes(torch.tensor(sides, dtype=torch.float32).reshape(-1, 4))
        found.scores = 1 - masks.sum((1, 2)) / 1e4 - values / 1e6
        found.pred_classes = values.long() % 3
        found.pred_masks = masks
        return found[found.scores.argsort(descending=True)]


def inputs(image):
    height, width = image.shape[:2]
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return {"image": tensor, "height": height, "width": width}


def scene(height, width, first=1):
    """Grey blocks of up to 11 pixels, one to each field of 16, RGB uint8 `(H, W, 3)`."""
    generator = np.random.default_rng(first)
    image = np.zeros((height, width, 3), np.uint8)
    for number, (y, x) in enumerate(np.ndindex(height // 16, width // 16)):
        rows, columns = generator.integers(3, 12, 2)
        top, left = 16 * y + generator.integers(0, 16 - rows), 16 * x + generator.integers(0, 16 - columns)
        image[top : top + rows, left : left + columns] = first + number
    return image


def sliced(image, *, limit=1000, batch_size=3, model=None, **options):
    model = SlicedModel(model or Blocks(), Slicing(SIDE, **options), inputs, limit=limit, batch_size=batch_size)
    return model([{**inputs(image), ORIGINAL: image}])[0]["instances"]


def same(found, expected):
    assert found.image_size == expected.image_size and len(found) == len(expected) > 0
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    for field in ("scores", "pred_classes", "pred_masks"):
        assert torch.equal(found.get(field), expected.get(field))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("size", "batch_size"), [((130, 170), 3), ((30, 100), 100)])
def test_finds_what_the_whole_image_shows(size, batch_size, whole):
    """A block that a slice cuts has a better score than the whole one, and must lose all the same."""
    image = scene(*size)
    same(sliced(image, overlap=0.3, whole=whole, batch_size=batch_size), Blocks().find(inputs(image)["image"][0]))


@pytest.mark.parametrize(("overlap", "whole"), [(0.0, False), (0.3, True)])
def test_four_images_side_by_side(overlap, whole):
    """Without overlap each slice is one of the images; with it, blocks are found among those of others."""
    parts = [scene(SIDE, SIDE, first) for first in (1, 61, 121, 181)]
    image = np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])
    found = sliced(image, overlap=overlap, whole=whole)
    singles = []
    for number, part in enumerate(parts):
        y, x = SIDE * (number // 2), SIDE * (number % 2)
        single = Blocks().find(inputs(part)["image"][0])
        masks = torch.zeros(len(single), *image.shape[:2], dtype=torch.bool)
        masks[:, y : y + SIDE, x : x + SIDE] = single.pred_masks
        moved = Instances(tuple(image.shape[:2]), pred_boxes=Boxes(single.pred_boxes.tensor + torch.tensor([x, y] * 2)))
        moved.scores, moved.pred_classes, moved.pred_masks = single.scores, single.pred_classes, masks
        singles.append(moved)
    expected = Instances.cat(singles)
    same(found, expected[expected.scores.argsort(descending=True)])


def test_large_objects_come_from_the_whole_image():
    image = np.zeros((100, 100, 3), np.uint8)
    image[5:95, 10:90] = 7
    assert sliced(image).pred_boxes.tensor.tolist() == [[10, 5, 90, 95]]
    assert len(sliced(image, whole=False)) > 1


def test_limit_and_masks_of_large_images(monkeypatch):
    image = scene(130, 170)
    expected = sliced(image)
    monkeypatch.setattr(module, "LARGEST", 100)
    found = sliced(image, limit=5)
    assert isinstance(found.pred_masks, EncodedMasks) and torch.equal(found.scores, expected.scores[:5])
    assert torch.equal(torch.stack(list(found.pred_masks)), expected.pred_masks[:5])


def test_nothing_and_boxes_alone():
    assert len(sliced(np.zeros((100, 100, 3), np.uint8))) == 0

    class Boxes2(Blocks):
        def find(self, image):
            found = super().find(image)
            found.remove("pred_masks")
            return found

    assert not sliced(scene(100, 100), model=Boxes2()).has("pred_masks")

    class Keypoints(Blocks):
        def find(self, image):
            found = super().find(image)
            found.pred_keypoints = torch.zeros(len(found), 1, 3)
            return found

    with pytest.raises(UserError, match="also gives pred_keypoints, which cannot be merged"):
        sliced(scene(100, 100), model=Keypoints())
    with pytest.raises(OSError, match="makes 10001 slices"):
        sliced(np.zeros((SIDE, SIDE + 10_000, 3), np.uint8), overlap=0.99)


@pytest.mark.parametrize("family", ["demo", "ConvMAE-FPN"])
def test_small_images_give_the_same_bits(family):
    """Also in a batch with a large one."""
    predictor = tiny_predictor(family)
    predictor.batch_size = 3
    small = pictures(3)
    plain = predictor(small)
    for found, expected in zip(predictor(small, slice=90), plain, strict=True):
        same(found, expected)
    mixed = predictor(small, slice=60, slice_whole=False)
    same(mixed[2], plain[2])
    assert [one.image_size for one in mixed] == [image.shape[:2] for image in small]
    scores = mixed[0].scores
    predictor.score_threshold = float(scores.median())
    above = predictor(small, slice=60, slice_whole=False)[0].scores
    assert 0 < len(above) < len(scores) and torch.equal(above, scores[scores >= predictor.score_threshold])


def test_options_of_the_config():
    overrides = ["test.slice=64", "test.slice_overlap=0.5", "test.slice_whole=false", "test.slice_metric=ios",
                 "test.slice_threshold=0.3", "data.max_detections=7"]  # fmt: skip
    model = nn.Linear(1, 1)
    built = with_slices(load_config(str(REPO / CONFIG), overrides), model)
    assert built.model is model and built.slicing == Slicing(64, 0.5, False, "ios", 0.3) and built.limit == 7
    assert with_slices(load_config(str(REPO / CONFIG), overrides[1:]), model) is model
    with pytest.raises(UserError, match="slice=0 must be a whole number of pixels"):
        load_config(str(REPO / CONFIG), ["test.slice=0"])
    with pytest.raises(UserError, match="slice=64 is for detectors, and the config's task is segmentation"):
        load_config(str(REPO / "projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py"), ["test.slice=64"])
    with pytest.raises(UserError, match="slice=64 is for detectors"):
        tiny_predictor("UperNet")(pictures(1)[0], slice=64)
