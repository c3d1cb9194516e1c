"""From a config file and overrides to the config of one run, in which nothing is left to derive."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from lazyrun.config.checks import (
    check_fsdp,
    check_layer_decay,
    check_loaders,
    check_precision,
    check_seed,
    check_weight_options,
    check_writers,
)
from lazyrun.config.loading import load_config
from lazyrun.config.lr_and_iterations import Recipe, derive_recipe
from lazyrun.config.task import Task, task_of
from lazyrun.data.padding import check_padding, check_training_images
from pretrain.common.errors import UserError

__all__ = ["RunConfig", "resolve_config"]

logger = logging.getLogger(__name__)

Check = Callable[[], object]


@dataclass(frozen=True)
class RunConfig:
    """What a run is built from. It does not change afterwards.

    Attributes:
        cfg: the config, read-only; what `config.yaml` holds.
        task: what its models do.
        recipe: the numbers of a training; None for an evaluation.
        train_dataset: detectron2's dicts of the training images; empty for an evaluation.
    """

    cfg: DictConfig
    task: Task
    recipe: Recipe | None = None
    train_dataset: Sequence[dict[str, Any]] = field(default=(), repr=False)


def resolve_config(
    config: str | DictConfig,
    overrides: Sequence[str] = (),
    *,
    training: bool,
    output_dir: Path | None = None,
    world_size: int = 1,
    run_check: Callable[[Check], object] = lambda check: check(),
) -> RunConfig:
    """Works out everything that follows from something else, checks it, and closes the config.

    In this order: defaults and overrides (:mod:`lazyrun.config.loading`), the user's own data with its class count
    (:attr:`Task.use_custom_data`), the evaluator's folder, checks of the numbers and of the data, and for a training
    iterations, periods, schedule and learning rate (:mod:`lazyrun.config.lr_and_iterations`), which need the number of
    images. Resolving the `config.yaml` of a run again changes nothing.

    Args:
        config: LazyConfig `.py` file, the `config.yaml` of a run, or what
            :func:`lazyrun.config.loading.load_config` made of either; that one is not changed.
        overrides: `key=value` changes, for a file.
        training: resolve for a training; else for an evaluation, which needs neither training data nor a recipe.
        output_dir: replaces `train.output_dir`.
        world_size: processes of the run.
        run_check: runs a check of the data; a distributed run reads the files in one process only.

    Raises:
        UserError: the config, its data or its numbers cannot be used.
    """
    cfg = load_config(config, overrides) if isinstance(config, str) else config.copy()
    if output_dir is not None:
        cfg.train.output_dir = str(output_dir)
    task = task_of(cfg)
    task.use_custom_data(cfg, training=training)
    if "evaluator" not in cfg.dataloader and not training:
        raise UserError(
            "The config has no dataloader.evaluator, so --eval-only has nothing to evaluate; add one, or name your "
            "evaluation data with the options that begin with data.val_."
        )
    if "evaluator" in cfg.dataloader and "output_dir" not in cfg.dataloader.evaluator:
        cfg.dataloader.evaluator.output_dir = "${train.output_dir}/inference"
    check_padding(cfg)
    check_precision(cfg)
    check_seed(cfg)
    check_weight_options(cfg)
    check_fsdp(cfg)
    check_loaders(cfg)
    check_writers(cfg.train.writers)
    if training:
        check_layer_decay(cfg)
    if cfg.train.check_data:
        run_check(lambda: task.check_datasets(cfg, training=training))
    recipe, dataset = None, ()
    if training:
        dataset = instantiate(cfg.dataloader.train.dataset)
        check_training_images(cfg, dataset)
        recipe = derive_recipe(cfg, len(dataset), world_size)
        logger.info(str(recipe))
    OmegaConf.set_readonly(cfg, True)
    return RunConfig(cfg, task, recipe, dataset)
