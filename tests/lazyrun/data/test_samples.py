"""What the loaders feed is what is shown."""

import itertools

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf
from shapes import CONFIG, REPO

from convmae_det.datasets import register_shapes
from lazyrun.config.loading import load_config
from lazyrun.data.samples import class_names, iterate_samples
from lazyrun.viz.instances import contact_sheet, draw_instances
from pretrain.common.errors import UserError


@pytest.fixture
def cfg(shapes):
    for split in ("train", "val"):
        name = f"shapes_{split}"
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    register_shapes(shapes)
    return load_config(str(REPO / CONFIG))


def test_training_samples_are_the_runs_first(cfg):
    batch = next(iter(instantiate(cfg.dataloader.train)))
    for sample, fed in zip(iterate_samples(cfg, "train"), batch, strict=False):
        assert np.array_equal(sample.image, fed["image"].permute(1, 2, 0).numpy())
        assert torch.equal(sample.instances.gt_boxes.tensor, fed["instances"].gt_boxes.tensor)
    assert class_names(cfg, "train") == ["circle", "square", "triangle", "star"]


def test_validation_shows_what_is_evaluated_with_its_annotations(cfg):
    samples = list(iterate_samples(cfg, "val"))
    fed = list(itertools.chain.from_iterable(instantiate(cfg.dataloader.test)))
    assert len(samples) == len(fed) == 4
    for sample, other in zip(samples, fed, strict=True):
        assert np.array_equal(sample.image, other["image"].permute(1, 2, 0).numpy())
    assert sum(len(s.instances) for s in samples) > 0 and samples[0].instances.has("gt_masks")


def test_detectron2s_loader_and_bgr(cfg):
    rgb = {s.file_name: s.image for s in itertools.islice(iterate_samples(cfg, "train"), 8)}
    from detectron2.data import build_detection_train_loader

    cfg.dataloader.train.pop("seed")
    cfg.dataloader.train._target_ = build_detection_train_loader
    cfg.dataloader.train.mapper.update(image_format="BGR", augmentations=[])
    sample = next(iterate_samples(cfg, "train"))
    # Flips change no channel's mean.
    np.testing.assert_allclose(sample.image.mean((0, 1)), rgb[sample.file_name].mean((0, 1)), rtol=1e-6)


def test_config_without_train_loader(cfg):
    OmegaConf.set_struct(cfg, False)
    cfg.dataloader.pop("train")
    with pytest.raises(UserError, match=r"has no dataloader\.train"):
        iterate_samples(cfg, "train")


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_masks_of_both_formats_cover_the_object(cfg, mask_format):
    cfg.dataloader.train.mapper.instance_mask_format = mask_format
    sample = next(iterate_samples(cfg, "train"))
    picture = draw_instances(np.zeros_like(sample.image), sample.instances, ["a"] * 4)
    scale = picture.shape[0] // sample.image.shape[0]
    x0, y0, x1, y1 = (sample.instances.gt_boxes.tensor[0] * scale).int().tolist()
    assert (picture[y0:y1, x0:x1].max(-1) > 0).mean() > 0.2


def test_images_without_annotations_and_contact_sheet(cfg):
    sample = next(iterate_samples(cfg, "train"))
    none = draw_instances(sample.image, sample.instances[:0], ["a"] * 4)
    assert none.shape[0] % sample.image.shape[0] == 0
    sheet = contact_sheet([none, sample.image, np.zeros((10, 30, 3), np.uint8)], ["a", "b", "c"], columns=2)
    assert sheet.shape[2] == 3 and sheet.shape[0] > sheet.shape[1]
