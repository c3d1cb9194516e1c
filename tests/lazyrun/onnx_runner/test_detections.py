"""Masks and results without PyTorch are those of detectron2 and pycocotools."""

import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from pycocotools import mask as mask_util

from lazyrun.onnx_runner.detections import Detections, decode_mask, encode_mask, in_original


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_are_cocos(share):
    generator = np.random.default_rng(0)
    mask = generator.random((37, 251)) < share
    mask[3:9, 20:200] |= share > 0
    expected = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    encoded = encode_mask(mask)
    assert encoded == {"size": expected["size"], "counts": expected["counts"].decode()}
    assert np.array_equal(decode_mask(encoded), mask)


def test_masks_are_pasted_as_detectron2_pastes_them():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(12, 2, generator=generator) * 60 - 5
    boxes = torch.cat([corners, corners + torch.rand(12, 2, generator=generator) * 70 + 0.3], 1)
    boxes[:, 0::2].clamp_(0, 90)
    boxes[:, 1::2].clamp_(0, 70)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    soft = torch.rand(len(boxes), 14, 14, generator=generator)
    expected = paste_masks_in_image(soft, boxes, (70, 90)).numpy()
    count = np.zeros(len(boxes))
    found = Detections((70, 90), boxes.numpy(), count, count.astype(int), soft.numpy())
    differing = sum((ours != theirs).sum() for ours, theirs in zip(found.masks, expected, strict=True))
    assert expected.any() and differing <= 2  # of pixels whose probability is 0.5 to rounding


def test_boxes_go_back_to_the_image_of_the_file():
    boxes = np.array([[2, 4, 10, 12], [30, 30, 40, 40], [-5, -5, 0, 3]], np.float32)
    scaled, nonempty = in_original(boxes, (40, 60), (2.0, 1.5))
    assert scaled[0].tolist() == [3, 8, 15, 24]
    assert nonempty.tolist() == [True, False, False]


def test_results_have_the_categories_of_the_annotation_file():
    found = Detections((4, 5), np.array([[1, 0, 3, 2]], np.float32), np.array([0.5]), np.array([1]))
    (result,) = found.to_coco(7, [{"id": 3, "name": "a"}, {"id": 9, "name": "b"}])
    assert result == {"image_id": 7, "category_id": 9, "bbox": [1, 0, 2, 2], "score": 0.5}
    nothing = found[found.scores > 1]
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 4) and nothing.to_coco(7, []) == []
