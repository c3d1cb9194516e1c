"""The configs of projects/ConvMAESeg load, dump, reload and build, and the published one is as published."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from convmae_seg.task import segmentation
from lazyrun.config.loading import load_config
from lazyrun.config.task import task_of
from lazyrun.detection import detection

CONFIGS = Path(__file__).parents[2] / "projects" / "ConvMAESeg" / "configs"
ALL = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.py") if "common" not in p.parts)
BASE = "ADE20K/upernet_convmae_base_512_slide_160k.py"


def build_on_meta(cfg) -> torch.nn.Module:
    """The model without memory for its weights: names and shapes are all that is looked at."""
    with torch.device("meta"):
        return instantiate(cfg.model)


@pytest.mark.parametrize("name", ALL)
def test_loads_dumps_reloads_and_builds(name, tmp_path):
    cfg = load_config(str(CONFIGS / name))
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    LazyConfig.save(cfg, str(first))
    reloaded = load_config(str(first))
    LazyConfig.save(reloaded, str(second))
    assert first.read_text() == second.read_text()
    reloaded.optimizer.params.model = model = build_on_meta(reloaded)
    optimizer = instantiate(reloaded.optimizer)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for split in ("train", "test"):
        instantiate(reloaded.dataloader[split].mapper)
    assert task_of(reloaded) == segmentation()
    assert reloaded.train.best_metric == "sem_seg/mIoU"


def test_other_configs_are_of_detectors():
    config = CONFIGS.parents[1] / "ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py"
    assert task_of(load_config(str(config))) == detection()


def test_recipe_as_published():
    cfg = load_config(str(CONFIGS / BASE))
    assert (cfg.train.max_iter, cfg.dataloader.train.total_batch_size, cfg.optimizer.lr) == (160_000, 16, 1e-4)
    resize, crop, flip, _, pad = instantiate(cfg.dataloader.train.mapper).augmentations.augs
    assert (resize.short_edge, resize.short_edge * resize.aspect, list(resize.scale_range)) == (512, 2048, [0.5, 2.0])
    assert isinstance(crop, T.RandomCrop_CategoryAreaConstraint) and list(crop.crop_size) == [512, 512]
    assert (crop.single_category_max_area, crop.ignored_category, flip.prob) == (0.75, 255, 0.5)
    assert pad.size == 512 and list(pad.pixel_mean) == [123.675, 116.28, 103.53]
    (test,) = instantiate(cfg.dataloader.test.mapper).augmentations.augs
    assert (test.short_edge, test.aspect, list(test.scale_range)) == (512, 4, [1.0, 1.0])


@pytest.mark.parametrize(("name", "size", "stride"), [(BASE, 512, 341), (BASE.replace("512", "640"), 640, 426)])
def test_one_number_sets_the_image_size(name, size, stride):
    cfg = load_config(str(CONFIGS / name))
    OmegaConf.resolve(cfg)
    inference = instantiate(cfg.model.inference)
    assert (inference.window_size, inference.stride_of(size)) == (size, stride)
    model = build_on_meta(cfg)
    assert model.backbone.pos_embed.shape == (1, (size // 16) ** 2, 768)
    assert cfg.dataloader.test.mapper.augmentations[0].short_edge == size
    assert cfg.dataloader.train.mapper.augmentations[-1].size == size
