"""`train.layer_decay` on every config: one override, at the depth of the model."""

import re
from functools import partial

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import ViT
from parity import REPO

from lazyrun.config.checks import check_layer_decay
from lazyrun.config.loading import load_config
from lazyrun.engine.optim import build_optimizer
from pretrain.common.errors import UserError

PROJECTS = REPO / "projects"
ALL = sorted(
    str(path.relative_to(PROJECTS)) for path in PROJECTS.glob("*/configs/**/*.py") if "common" not in path.parts
)
MIMDET = [name for name in ALL if "/mimdet_" in name]
DETECTOR = "ConvMAEDet/configs/COCO/mask_rcnn_vitdet_convmae_b_25ep.py"


def build(cfg):
    """The learning rate of each parameter relative to the base; most models need no memory for their weights."""
    is_detectron2s = cfg.model.backbone.get("net", {}).get("_target_") is ViT
    if is_detectron2s:  # which cannot be made without
        cfg.model.backbone.net.update(embed_dim=24, num_heads=2, depth=5, window_block_indexes=[])
    with torch.device("cpu" if is_detectron2s else "meta"):
        model = instantiate(cfg.model)
    optimizer = build_optimizer(cfg.optimizer, model, cfg.train.layer_decay)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group["lr"] / cfg.optimizer.lr for group in optimizer.param_groups for p in group["params"]}


def depth_of(factors):
    blocks = [re.search(r"\.blocks3?\.(\d+)\.", name) for name in factors]
    return 1 + max(int(match[1]) for match in blocks if match)


@pytest.mark.parametrize("name", [name for name in ALL if name not in MIMDET])
def test_every_layer_has_its_share_of_the_one_above(name):
    cfg = load_config(str(PROJECTS / name), ["train.layer_decay=0.7"])
    check_layer_decay(cfg)
    factors = build(cfg)
    depth = depth_of(factors)
    for parameter, factor in factors.items():
        layer = depth + 1
        if ".patch_embed" in parameter or re.search(r"\.blocks[12]\.", parameter):
            layer = 0
        elif match := re.search(r"\.blocks3?\.(\d+)\.", parameter):
            layer = int(match[1]) + 1
        elif parameter.endswith("pos_embed"):  # layer 0 for some, left out for others
            assert factor == pytest.approx(0.7 ** (depth + 1)) or factor == 1
            continue
        assert factor == pytest.approx(0.7 ** (depth + 1 - layer)), parameter


@pytest.mark.parametrize("name", MIMDET)
def test_learning_rates_that_do_not_go_by_layers(name):
    cfg = load_config(str(PROJECTS / name), ["train.layer_decay=0.7"])
    with pytest.raises(UserError, match=r"train\.layer_decay=0\.7: .* do not go by layers; get_mimdet_lr_scale, its"):
        check_layer_decay(cfg)


@pytest.mark.parametrize(
    "name",
    ["ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py", "ConvMAESeg/configs/shapes/upernet_convmae_tiny.py"],
)
def test_the_depth_is_the_models(name, tmp_path):
    """Also in the config.yaml of a run; another depth needs no other option."""
    LazyConfig.save(load_config(str(PROJECTS / name)), str(tmp_path / "config.yaml"))
    net = "model.backbone" if "Seg" in name else "model.backbone.net"
    changes = [f"{net}.depth=[1,1,4]", "train.layer_decay=0.5"]
    factors = build(load_config(str(tmp_path / "config.yaml"), changes))
    found = {n.split(".blocks3.")[1][0]: factor for n, factor in factors.items() if ".blocks3." in n}
    assert found == {"0": 0.5**4, "1": 0.5**3, "2": 0.5**2, "3": 0.5}
    assert {factor for n, factor in factors.items() if ".patch_embed" in n} == {0.5**5}


def test_the_rate_of_the_config_stays_without():
    plain, same = (build(load_config(str(PROJECTS / DETECTOR), changes)) for changes in ([], ["train.layer_decay=0.8"]))
    assert plain == same and min(plain.values()) == pytest.approx(0.8**12)


@pytest.mark.parametrize("value", ["0", "1.5", "-1", "true", "abc"])
def test_mistaken_rates(value):
    cfg = load_config(str(PROJECTS / DETECTOR), [f"train.layer_decay={value}"])
    with pytest.raises(UserError, match=r"train\.layer_decay=.* must be a number above 0 and at most 1, or null"):
        check_layer_decay(cfg)


def test_a_config_without_layers():
    cfg = load_config(str(PROJECTS / DETECTOR), ["train.layer_decay=0.7", "optimizer.params.lr_factor_func=null"])
    with pytest.raises(UserError, match=r"has no optimizer\.params\.lr_factor_func, which tells the layers"):
        check_layer_decay(cfg)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (lambda name, lr_decay_rate, num_layers: 1.0, "finds no layers in the model"),
        (lambda name, lr_decay_rate, num_layers: 0.3, "is no power of the rate"),
    ],
)
def test_functions_that_do_not_fit_the_model(factor, message):
    cfg = load_config(str(PROJECTS / "ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py"))
    cfg.optimizer.params.lr_factor_func = partial(factor, num_layers=1)
    cfg.train.layer_decay = 0.5
    with pytest.raises(UserError, match=message):
        build(cfg)
