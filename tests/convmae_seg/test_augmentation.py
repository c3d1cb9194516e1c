"""The images of the ADE20K recipe: sizes as published, label maps that follow, colours alone that change."""

import colorsys

import numpy as np
import pytest
from detectron2.data import transforms as T

from convmae_seg.augmentation import PadToSize, PhotometricDistortion, ResizeKeepRatio, _saturate, _turn_hue
from lazyrun.data.loader import seeded
from pretrain.common.errors import UserError

MEAN = (123.675, 116.28, 103.53)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 683), (512, 683)), ((683, 512), (683, 512)), ((300, 200), (768, 512)), ((256, 4096), (128, 2048)),
     ((100, 401), (511, 2048))],
)  # fmt: skip
def test_the_test_size_is_2048_by_512_keeping_the_ratio(size, expected):
    image = np.zeros((*size, 3), np.uint8)
    assert ResizeKeepRatio(512).get_transform(image).apply_image(image).shape == (*expected, 3)


@pytest.mark.parametrize(
    "edges", [(0, 4.0), (float("-inf"), 4.0), (512, float("nan")), (512, 0.5), (512, float("inf"))]
)
def test_edges_that_are_none(edges):
    with pytest.raises(UserError, match=rf"short_edge={edges[0]} and aspect={edges[1]} must be numbers of at least 1"):
        ResizeKeepRatio(*edges)


def test_training_sizes_span_half_to_double():
    image = np.zeros((300, 400, 3), np.uint8)
    resize = ResizeKeepRatio(512, scale_range=(0.5, 2.0))
    with seeded(0):
        short = [min(resize.get_transform(image).apply_image(image).shape[:2]) for _ in range(60)]
    assert 256 <= min(short) < 320 and 940 < max(short) <= 1024


def test_labels_follow_without_new_values():
    image, labels = np.zeros((40, 60, 3), np.uint8), np.full((40, 60), 255)
    labels[:20] = 7
    inputs = T.AugInput(image, sem_seg=labels)
    ResizeKeepRatio(30, scale_range=(0.7, 0.7))(inputs)
    assert inputs.sem_seg.shape == inputs.image.shape[:2] == (21, 32) and inputs.sem_seg.dtype == labels.dtype
    assert set(np.unique(inputs.sem_seg)) == {7, 255}
    assert (inputs.sem_seg == 7).mean() == pytest.approx(0.5, abs=0.05)


def test_padding_normalises_to_zero_and_is_ignored():
    image, labels = np.full((4, 6, 3), 9, np.uint8), np.ones((4, 6), np.int64)
    inputs = T.AugInput(image, sem_seg=labels)
    PadToSize(8, MEAN)(inputs)
    assert inputs.image.shape == (8, 8, 3) and inputs.image.dtype == np.float32
    assert (inputs.image[:4, :6] == 9).all() and (inputs.image[4:] - np.float32(MEAN) == 0).all()
    assert (inputs.sem_seg[:4, :6] == 1).all() and (inputs.sem_seg == 255).sum() == 64 - 24
    whole = T.AugInput(np.zeros((8, 9, 3), np.uint8))
    PadToSize(8, MEAN)(whole)
    assert whole.image.shape == (8, 9, 3) and whole.image.dtype == np.uint8


def test_no_class_exceeds_three_quarters_of_a_crop():
    labels = np.zeros((64, 64), np.int64)
    labels[:, 40:] = 1
    crop = T.RandomCrop_CategoryAreaConstraint(
        crop_type="absolute", crop_size=[32, 32], single_category_max_area=0.75, ignored_category=255
    )
    with seeded(0):
        for _ in range(20):
            inputs = T.AugInput(np.zeros((64, 64, 3), np.uint8), sem_seg=labels)
            crop(inputs)
            assert inputs.sem_seg.shape == (32, 32)
            assert np.bincount(inputs.sem_seg.ravel()).max() < 0.75 * 32 * 32


def test_colours():
    pixel = np.uint8([[[200, 100, 50]]])
    h, s, v = colorsys.rgb_to_hsv(*(pixel[0, 0] / 255))
    expected = 255 * np.array(colorsys.hsv_to_rgb(h, s * 0.5, v))
    assert _saturate(pixel, 0.5)[0, 0] == pytest.approx(expected, abs=2)
    expected = 255 * np.array(colorsys.hsv_to_rgb((h + 36 / 360) % 1, s, v))
    assert _turn_hue(pixel, 18)[0, 0] == pytest.approx(expected, abs=3)


def test_distortion_is_drawn_once_and_changes_the_image_alone():
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), np.ones((8, 8), np.int64)
    results = []
    with seeded(1):
        for _ in range(40):
            transform = PhotometricDistortion().get_transform(image)
            results.append(transform.apply_image(image))
            assert (transform.apply_image(image) == results[-1]).all() and results[-1].dtype == np.uint8
            assert transform.apply_segmentation(labels) is labels
    unchanged = sum((result == image).all() for result in results)
    assert 0 < unchanged < 12  # 1/16 of the draws change nothing
    assert max(abs(result.astype(int) - image).max() for result in results) > 60
