"""Loading a LazyConfig for a run: defaults for what it leaves out, and overrides that must name something real."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2 import model_zoo
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lazyrun.config.changes import suspecting
from lazyrun.config.overrides import apply_overrides
from lazyrun.config.slicing import SLICE_OPTIONS, slicing_of
from lazyrun.config.task import DETECTION, Task, task_of
from lazyrun.config.trust import read_yaml
from lazyrun.data.corrupt import MAX_CORRUPT, share_of_corrupt
from lazyrun.data.detections import set_max_detections
from pretrain.common.errors import UserError

__all__ = ["default_train_options", "load_config", "read_config"]

DEFAULT_TEST_OPTIONS = {"tta": {"enabled": False, "scales": [0.75, 1.0, 1.25], "flip": True}, **SLICE_OPTIONS}
"""Test-time augmentation and slices, see :mod:`lazyrun.modeling.tta` and :mod:`lazyrun.modeling.slicing`."""

SECTIONS = (
    *("model", "dataloader", "optimizer", "lr_multiplier", "train", "data", "test", "task"),
    *("train.amp", "train.checkpointer", "train.ddp", "train.ema", "test.tta", "dataloader.evaluator"),
    *(f"dataloader.{split}{below}" for split in ("train", "test") for below in ("", ".dataset", ".mapper")),
)
"""Parts of a config that have keys below them."""

TEXTS = ("train.output_dir", "train.device")
TEXTS_OR_NONE = ("train.init_checkpoint", "dataloader.evaluator.output_dir")

MISSING = object()

UNREADABLE = (
    *(SyntaxError, ImportError, NameError, AttributeError, LookupError, TypeError, ValueError, AssertionError),
    *(yaml.YAMLError, OmegaConfBaseException),
)
"""What goes wrong in a config file that is executed, or was cut off."""


def default_train_options() -> DictConfig:
    """detectron2's `train` options with what this project's trainer adds; new keys are explained in DETECTION.md."""
    train = model_zoo.get_config("common/train.py").train
    additions = {
        "seed": 0,
        "amp": {"dtype": "float16"},
        "best_metric": "bbox/AP",
        "check_data": True,
        "grad_accum_steps": 1,
        "compile": False,
        "fsdp": False,
        "freeze": None,
        "ema": {"decay": None},
        "clip_grad": None,
        "epochs": None,
        "eval_epochs": None,
        "checkpoint_epochs": None,
        "lr_base_batch_size": None,
        "layer_decay": None,
        "writers": ["console", "json", "tensorboard"],
        "wandb": {"project": "convmae-det", "name": None, "mode": None},
    }
    merged = OmegaConf.merge(train, additions)
    assert isinstance(merged, DictConfig)
    return merged


def load_config(config_file: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Reads a run's config with :func:`read_config`, fills in defaults, and applies `key=value` overrides.

    Raises:
        UserError: there is no such file, it cannot be read, or an override does not parse, names nothing, or gives text
            in place of a number.
    """
    cfg = read_config(config_file)
    needed = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
    missing = [key for key in needed if cfg.get(key) is None]  # a file that was cut off may end in an empty key
    if missing:
        raise UserError(f"Config file {config_file} defines no {', '.join(missing)}; a run needs them.")
    _check_sections(cfg)
    cfg.train = OmegaConf.merge(default_train_options(), cfg.train)
    cfg.setdefault("task", {"_target_": DETECTION})
    cfg.data = OmegaConf.merge(_default_data_options(task_of(cfg)), cfg.get("data", {}))
    cfg.test = OmegaConf.merge(DEFAULT_TEST_OPTIONS, cfg.get("test", {}))
    with suspecting(overrides):
        apply_overrides(cfg, overrides)
        _check_sections(cfg)
        share_of_corrupt(cfg)
        set_max_detections(cfg)
        slicing_of(cfg)
    return cfg


def _default_data_options(task: Task) -> dict[str, Any]:
    options: dict[str, Any] = dict.fromkeys(task.data_options)
    options["max_corrupt"] = MAX_CORRUPT
    return options | ({"max_detections": None} if task.name == "detection" else {})


def _check_sections(cfg: DictConfig) -> None:
    """Raises UserError if a part of the config that has keys below it, or is a text, is something else."""
    for key in SECTIONS:
        value = OmegaConf.select(cfg, key, default=MISSING)
        if value is not MISSING and not isinstance(value, DictConfig):
            raise UserError(f"{key}={value} must have keys and values; leave it out, or change single keys below it.")
    for key in (*TEXTS, *TEXTS_OR_NONE):
        value = OmegaConf.select(cfg, key, default="")
        if not isinstance(value, str) and not (value is None and key in TEXTS_OR_NONE):
            raise UserError(f"{key}={value} must be a text.")


def read_config(config_file: str) -> DictConfig:
    """Reads a LazyConfig `.py` file, or the `config.yaml` of an earlier run, without filling in defaults.

    A `.py` file is a program and is run. A YAML file may name what :mod:`lazyrun.config.trust` allows.

    Raises:
        UserError: there is no such file, it cannot be read, or it is YAML and names something else.
    """
    if not Path(config_file).is_file():
        raise UserError(f"Config file {config_file!r} does not exist; check its path.")
    try:
        if config_file.endswith((".yaml", ".yml")):
            cfg = OmegaConf.create(read_yaml(config_file), flags={"allow_objects": True})
        else:
            cfg = LazyConfig.load(config_file)
    except UserError as e:
        raise UserError(f"Config file {config_file} is not read: {e}.") from e
    except UNREADABLE as e:
        reason = " ".join(str(e).split())  # YAML's messages have several lines
        raise UserError(f"Config file {config_file} cannot be loaded: {type(e).__name__}: {reason}") from e
    if not isinstance(cfg, DictConfig) or not cfg:
        raise UserError(f"Config file {config_file} holds no keys and values; is it a run's config.yaml?")
    return cfg
