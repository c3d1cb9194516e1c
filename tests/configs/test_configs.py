"""Every config loads, dumps, reloads and builds, and the published ones are as published."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import ViT
from omegaconf import OmegaConf

from lazyrun.config.loading import load_config

CONFIGS = Path(__file__).parents[2] / "projects" / "ConvMAEDet" / "configs"
ALL = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.py") if "common" not in p.parts)


def build_on_meta(cfg) -> torch.nn.Module:
    """The model, without memory for its weights where that works: names and shapes are all that is looked at."""
    detectron2_vit = cfg.model.backbone.net._target_ in (ViT, "detectron2.modeling.ViT")  # computes while it is built
    with nullcontext() if detectron2_vit else torch.device("meta"):
        return instantiate(cfg.model)


@pytest.mark.parametrize("name", ALL)
def test_loads_dumps_reloads_and_builds(name, tmp_path):
    cfg = load_config(str(CONFIGS / name))
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    LazyConfig.save(cfg, str(first))
    reloaded = load_config(str(first))
    LazyConfig.save(reloaded, str(second))
    assert first.read_text() == second.read_text()
    expected = {k: v.shape for k, v in build_on_meta(cfg).state_dict().items()}
    model = build_on_meta(reloaded)
    assert {k: v.shape for k, v in model.state_dict().items()} == expected
    reloaded.optimizer.params.model = model
    optimizer = instantiate(reloaded.optimizer)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    scheduler = instantiate(reloaded.lr_multiplier)
    assert 0 < scheduler(0.0) <= 0.01 and scheduler(0.5) == 1.0 and scheduler(0.999) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("COCO/mask_rcnn_vitdet_convmae_b_25ep.py", "mask_rcnn_vitdet_convmae_b"),
        ("COCO/mask_rcnn_vitdet_b_100ep.py", "mask_rcnn_vitdet_b"),
    ],
)
def test_names_shapes_and_size_as_published(name, reference, reference_names):
    model = build_on_meta(load_config(str(CONFIGS / name)))
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == reference_names[reference]
    assert sum(p.numel() for p in model.parameters()) == reference_names["num_params"][reference]


def test_optimizer_as_published(reference_names):
    cfg = load_config(str(CONFIGS / "COCO/mask_rcnn_vitdet_convmae_b_25ep.py"))
    cfg.optimizer.params.model = model = build_on_meta(cfg)
    optimizer = instantiate(cfg.optimizer)
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["betas"] == (0.9, 0.999)
    names = {id(p): name for name, p in model.named_parameters()}
    ours = {
        names[id(p)]: {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        for group in optimizer.param_groups
        for p in group["params"]
    }
    published = reference_names["optimizer_mask_rcnn_vitdet_convmae_b"]
    assert ours.keys() == published.keys()
    for name, values in published.items():
        assert ours[name] == pytest.approx(values, rel=1e-6), name


def test_schedule_as_published():
    cfg = load_config(str(CONFIGS / "COCO/mask_rcnn_vitdet_convmae_b_25ep.py"))
    assert cfg.train.max_iter == 184375 and cfg.dataloader.train.total_batch_size == 16
    assert list(cfg.lr_multiplier.scheduler.milestones) == [163889, 177546]
    assert cfg.lr_multiplier.warmup_length * 184375 == pytest.approx(250)
    assert cfg.lr_multiplier.warmup_factor == 0.001 and list(cfg.lr_multiplier.scheduler["values"]) == [1.0, 0.1, 0.01]
    assert cfg.train.amp == {"enabled": True, "dtype": "float16"} and cfg.train.ddp.fp16_compression


def test_one_number_sets_the_image_size():
    cfg = load_config(str(CONFIGS / "COCO/mask_rcnn_vitdet_convmae_b_25ep.py"), ["data.image_size=256"])
    OmegaConf.resolve(cfg.dataloader.train.mapper)
    _, scale, crop = cfg.dataloader.train.mapper.augmentations
    assert (scale.target_height, scale.target_width, *crop.crop_size) == (256,) * 4
    assert cfg.dataloader.test.mapper.augmentations[0].max_size == 256
    assert cfg.model.backbone.square_pad == cfg.model.backbone.net.img_size == 256
