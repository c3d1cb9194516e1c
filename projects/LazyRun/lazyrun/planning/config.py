"""A config's training to plan."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from omegaconf import DictConfig
from torch import nn

from lazyrun.config.changes import suspecting
from lazyrun.config.checks import check_fsdp
from lazyrun.config.loading import load_config
from lazyrun.config.lr_and_iterations import check_batch
from lazyrun.config.schedule import iterations
from lazyrun.config.task import task_of
from lazyrun.engine.optim import build_optimizer
from lazyrun.engine.sharding import units_of
from lazyrun.modeling.build import build_model
from lazyrun.modeling.freeze import freeze
from pretrain.common.errors import UserError
from pretrain.common.planning.fake import unfilled
from pretrain.common.planning.plan import Training

__all__ = ["config_to_plan", "image_size_of"]

STRIDE = 32
"""Sides of images are padded to a multiple of it."""


def config_to_plan(
    config_file: str, overrides: Sequence[str], gpus: int, images: int, size: tuple[int, int] | None = None
) -> Training:
    """The training that a config asks for, with a model that has no values.

    Args:
        overrides: `key=value` changes of the config.
        gpus: processes that share `dataloader.train.total_batch_size`.
        images: of the training set, for runs whose length is given in epochs.
        size: height and width of the images that a step gets; by default the config's.

    Raises:
        UserError: the config or its numbers cannot be used, or its model is none whose training can be planned.
    """
    cfg = load_config(config_file, overrides)
    task = task_of(cfg)
    batch, accumulated = cfg.dataloader.train.total_batch_size, cfg.train.grad_accum_steps
    check_batch(batch, accumulated, gpus)
    check_fsdp(cfg)
    size = size or image_size_of(cfg)
    with suspecting(overrides):
        model = unfilled(lambda: build_model(_on_cpu(cfg)))
        frozen = freeze(model, cfg.train.freeze)

    def make_forward(module: nn.Module, batch_size: int) -> Callable[[], torch.Tensor]:
        run = task.training_pass(module, batch_size, size)
        for part in frozen:
            part.eval()  # after the rest was put into training mode, as in a run
        return run

    micro_batch = batch // (gpus * accumulated)
    return Training(
        name=config_file,
        model=model,
        make_forward=make_forward,
        make_optimizer=lambda module: build_optimizer(cfg.optimizer, module, cfg.train.layer_decay),
        probes=(2, 4),  # batch norms of a pyramid's pooling need two images
        batch_size=micro_batch,
        micro_batches=accumulated,
        gpus=gpus,
        steps=_steps(cfg, images, batch),
        units=units_of(model) if cfg.train.fsdp and gpus > 1 else None,
    )


def _on_cpu(cfg: DictConfig) -> DictConfig:
    cfg = deepcopy(cfg)
    cfg.train.device = "cpu"
    return cfg


def _steps(cfg: DictConfig, images: int, batch: int) -> int:
    return cfg.train.max_iter if cfg.train.epochs is None else iterations(cfg.train.epochs, images, batch)


def image_size_of(cfg: DictConfig) -> tuple[int, int]:
    """Height and width of the largest images that the config trains on, padded.

    Raises:
        UserError: the config does not say.
    """
    data = cfg.data
    if data.get("image_size"):
        return (data.image_size, data.image_size)
    if data.get("max_size") and data.get("train_short_edge"):
        sides = max(list(data.train_short_edge)), data.max_size
        return (_padded(sides[0]), _padded(sides[1]))
    raise UserError("The config has neither data.image_size nor data.max_size; give --size HEIGHT WIDTH.")


def _padded(side: int) -> int:
    return math.ceil(side / STRIDE) * STRIDE
