"""The configs of projects/MIMDet load, dump, reload and build, and the published ones are as published."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from lazyrun.config.loading import load_config

CONFIGS = Path(__file__).parents[2] / "projects" / "MIMDet" / "configs"
ALL = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.py") if "common" not in p.parts)
MIMDET_BASE = "mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x"
PUBLISHED = [
    MIMDET_BASE,
    "mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x",
    "benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae",
    "convmae_base_mask_rcnn_FPN_25ep",
]


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
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)
    instantiate(reloaded.dataloader.train.mapper)
    instantiate(reloaded.dataloader.test.mapper)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_and_optimizer_as_published(name, reference_names):
    cfg = load_config(str(CONFIGS / "COCO" / f"{name}.py"))
    cfg.optimizer.params.model = model = build_on_meta(cfg)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == reference_names[name]
    assert sum(p.numel() for p in model.parameters()) == reference_names["num_params"][name]
    optimizer = instantiate(cfg.optimizer)
    assert isinstance(optimizer, torch.optim.AdamW)
    names = {id(p): n for n, p in model.named_parameters()}
    ours = {
        names[id(p)]: {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        for group in optimizer.param_groups
        for p in group["params"]
    }
    published = reference_names[f"optimizer_{name}"]
    assert ours.keys() == published.keys()
    for parameter, values in published.items():
        assert ours[parameter] == pytest.approx(values, rel=1e-6), parameter


@pytest.mark.parametrize(
    ("name", "batch_size", "max_iter"),
    [
        (MIMDET_BASE, 64, 67500),
        ("benchmarking_mask_rcnn_base_FPN_25ep_LSJ_mae", 64, 46094),
        ("benchmarking_mask_rcnn_base_FPN_50ep_LSJ_mae", 64, 92187),
        ("benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae", 64, 184375),
        ("convmae_base_mask_rcnn_FPN_25ep", 32, 92187),
        ("convmae_base_mask_rcnn_FPN_50ep", 32, 184375),
        ("convmae_base_mask_rcnn_FPN_100ep", 32, 368750),
    ],
)
def test_length(name, batch_size, max_iter):
    cfg = load_config(str(CONFIGS / "COCO" / f"{name}.py"))
    assert (cfg.dataloader.train.total_batch_size, cfg.train.max_iter) == (batch_size, max_iter)


def test_schedule_of_mimdet():
    cfg = load_config(str(CONFIGS / "COCO" / f"{MIMDET_BASE}.py"))
    assert list(cfg.lr_multiplier.scheduler.milestones) == [50625, 61875]  # epochs 27 and 33 of 36
    schedule, epoch = instantiate(cfg.lr_multiplier), 1 / 36
    for epochs, expected in {0: 0, 0.125: 0.5, 0.25: 1, 26.9: 1, 27.1: 0.1, 32.9: 0.1, 33.1: 0.01, 35.9: 0.01}.items():
        assert schedule(epochs * epoch) == pytest.approx(expected, abs=1e-6), epochs


@pytest.mark.parametrize(
    ("name", "epochs", "warmup_epochs"),
    [
        ("benchmarking_mask_rcnn_base_FPN_25ep_LSJ_mae", 25, 0.25),
        ("benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae", 100, 0.25),
        ("convmae_base_mask_rcnn_FPN_25ep", 25, 0.5),
        ("convmae_base_mask_rcnn_FPN_100ep", 100, 0.125),
    ],
)
def test_cosine_schedules(name, epochs, warmup_epochs):
    schedule = instantiate(load_config(str(CONFIGS / "COCO" / f"{name}.py")).lr_multiplier)
    assert schedule(0.0) == 0
    assert schedule(warmup_epochs / epochs) == pytest.approx(1.0, abs=1e-3)
    assert schedule(0.5) == pytest.approx(0.5) and schedule(1.0) == pytest.approx(0.0, abs=1e-9)


def test_one_number_sets_the_image_size_of_padded_squares():
    cfg = load_config(str(CONFIGS / "COCO" / "convmae_base_mask_rcnn_FPN_25ep.py"), ["data.image_size=256"])
    OmegaConf.resolve(cfg.dataloader)
    for crop in (cfg.dataloader.train.mapper.augmentations[-1], cfg.dataloader.test.mapper.augmentations[-1]):
        assert list(crop.crop_size) == [256, 256] and crop.pad
    assert cfg.dataloader.test.mapper.augmentations[0].max_size == 256
    assert cfg.model.backbone.bottom_up.img_size == 256


def test_mimdet_images_as_published():
    cfg = load_config(str(CONFIGS / "COCO" / f"{MIMDET_BASE}.py"))
    flip, crop, resize = instantiate(cfg.dataloader.train.mapper).augmentations.augs
    shrink, cut = crop.aug.augs
    assert (flip.prob, crop.prob, shrink.short_edge_length) == (0.5, 0.5, [400, 500, 600])
    assert (cut.crop_type, list(cut.crop_size)) == ("absolute_range", [384, 600])
    assert (min(resize.short_edge_length), max(resize.short_edge_length), resize.max_size) == (480, 800, 1333)
    (test,) = instantiate(cfg.dataloader.test.mapper).augmentations.augs
    assert (list(test.short_edge_length), test.max_size) == ([800, 800], 1333)
