"""Epochs, batch and processes give iterations, periods and learning rate; what is given in iterations stays."""

from pathlib import Path

import pytest
from detectron2.config import LazyConfig

from lazyrun.config.loading import load_config
from lazyrun.config.lr_and_iterations import derive_recipe
from pretrain.common.errors import UserError

CONFIG = str(
    Path(__file__).parents[3] / "projects/ConvMAEDet/configs/COCO/mask_rcnn_vitdet_convmae_b_25ep.py",
)
COCO_IMAGES = 117_266


def derived(*overrides: str, images: int = COCO_IMAGES, world_size: int = 8):
    cfg = load_config(CONFIG, overrides)
    return cfg, derive_recipe(cfg, images, world_size)


def test_published_numbers_stay_and_epochs_are_for_information():
    cfg, recipe = derived()
    assert (cfg.train.max_iter, cfg.train.eval_period, cfg.optimizer.lr) == (184375, 5000, 1e-4)
    assert list(cfg.lr_multiplier.scheduler.milestones) == [163889, 177546]
    assert cfg.lr_multiplier.warmup_length * 184375 == pytest.approx(250)
    block = str(recipe)
    for part in (
        "images         117266",
        "16 = 8 x 1 x 2 (processes x micro-batches x images)",
        "184375 = 25.16 epochs of 7329.1",
        "learning rate  0.0001\n",
        "250 iterations from x0.001",
        "163889 (x0.1), 177546 (x0.01)",
        "every 5000 iterations and at the end",
    ):
        assert part in block


def test_epochs_set_everything():
    cfg, recipe = derived(
        "train.epochs=12", "dataloader.train.total_batch_size=8", "train.grad_accum_steps=4",
        "train.lr_base_batch_size=16", world_size=2,
    )  # fmt: skip
    max_iter = round(12 * COCO_IMAGES / 8)
    assert cfg.train.max_iter == recipe.max_iter == max_iter
    steps = cfg.lr_multiplier.scheduler
    assert list(steps.milestones) == pytest.approx([max_iter * 8 / 9, max_iter * 26 / 27], abs=1)
    assert steps.num_updates == max_iter and cfg.lr_multiplier.warmup_length * max_iter == pytest.approx(250)
    assert cfg.train.eval_period == cfg.train.checkpointer.period == -(-max_iter // 12)
    assert cfg.optimizer.lr == pytest.approx(5e-5) and cfg.optimizer.params.base_lr == cfg.optimizer.lr
    assert recipe.micro_batch_size == 1
    assert "5e-05 = 0.0001 x 0.5 for a batch of 8" in str(recipe)


def test_deriving_again_from_the_dumped_config_changes_nothing(tmp_path):
    cfg, _ = derived("train.epochs=3", "dataloader.train.total_batch_size=64", "train.lr_base_batch_size=16")
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = load_config(str(tmp_path / "config.yaml"))
    derive_recipe(again, COCO_IMAGES, 8)
    LazyConfig.save(again, str(tmp_path / "again.yaml"))
    assert (tmp_path / "config.yaml").read_text() == (tmp_path / "again.yaml").read_text()
    assert again.optimizer.lr == pytest.approx(4e-4)


def test_periods_in_epochs():
    cfg, _ = derived("train.epochs=100", images=80)  # 500 iterations
    assert cfg.train.eval_period == cfg.train.checkpointer.period == 20  # 25 times
    cfg, _ = derived("train.epochs=100", "train.eval_epochs=0", "train.checkpoint_epochs=0.5", images=160)
    assert (cfg.train.eval_period, cfg.train.checkpointer.period) == (0, 5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epochs=0"], r"train\.epochs=0 must be a number above 0"),
        (["train.epochs=many"], r"train\.epochs=many must be a number above 0"),
        (["train.epochs=1", "train.max_iter=5"], r"max_iter follows from train\.epochs=1: set train\.epochs instead"),
        (["train.epochs=1", "train.eval_period=5"], r"set train\.eval_epochs instead, or add train\.epochs=null"),
        (["train.epochs=1", "train.eval_epochs=-1"], r"train\.eval_epochs=-1 must be a number above 0"),
        (["train.eval_epochs=1"], r"eval_epochs needs train\.epochs; without it set train\.eval_period"),
        (["train.lr_base_batch_size=0"], r"lr_base_batch_size=0 must be a number above 0"),
        (["train.max_iter=0"], r"train\.max_iter=0 must be a whole number of iterations, at least 1"),
        (["train.max_iter=2.5"], r"train\.max_iter=2\.5 must be a whole number of iterations"),
        (["train.max_iter=null"], r"train\.max_iter=None must be a whole number of iterations"),
        (["train.eval_period=-1"], r"train\.eval_period=-1 must be a whole number of iterations, at least 0"),
        (["train.log_period=0"], r"train\.log_period=0 must be a whole number of iterations, at least 1"),
        (["train.checkpointer.period=0"], r"train\.checkpointer\.period=0 must be a whole number"),
        (["optimizer.lr=-1"], r"optimizer\.lr=-1 must be a number above 0"),
        (["train.grad_accum_steps=0"], r"grad_accum_steps=0 must be a whole number of at least 1"),
        (["dataloader.train.total_batch_size=16.5"], "total_batch_size=16.5 must be a whole number"),
        (["train.grad_accum_steps=3"], r"total_batch_size=16 is not a positive multiple of 24: 8 training processes"),
    ],
)
def test_mistakes(overrides, message):
    with pytest.raises(UserError, match=message):
        derived(*overrides)
