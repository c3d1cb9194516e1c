"""Loading a LazyConfig for a run: defaults for what it leaves out, and overrides that must name something real."""

import difflib
import inspect
from collections.abc import Sequence
from contextlib import suppress
from numbers import Real
from pathlib import Path

import yaml
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from convmae_det.custom_data import DATA_OPTIONS
from convmae_det.recipe import DERIVED_FROM_EPOCHS
from pretrain.errors import UserError

__all__ = ["build_model", "default_train_options", "load_config", "read_config"]

DEFAULT_TEST_OPTIONS = {"tta": {"enabled": False, "scales": [0.75, 1.0, 1.25], "flip": True}}
"""Test-time augmentation, see :mod:`convmae_det.tta`."""


UNREADABLE = (
    *(SyntaxError, ImportError, NameError, AttributeError, LookupError, TypeError, ValueError, AssertionError),
    *(yaml.YAMLError, OmegaConfBaseException),
)
"""What goes wrong in a config file that is executed, or was cut off."""

SWITCHES_OR_NAMES = ("train.compile",)
"""False by default, but not only true and false are values."""


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
        "epochs": None,
        "eval_epochs": None,
        "checkpoint_epochs": None,
        "lr_base_batch_size": None,
        "writers": ["console", "json", "tensorboard"],
        "wandb": {"project": "convmae-det", "name": None, "mode": None},
    }
    return OmegaConf.merge(train, additions)


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
    cfg.train = OmegaConf.merge(default_train_options(), cfg.train)
    options = DATA_OPTIONS if cfg.get("task") is None else ()  # other tasks' configs list their own
    cfg.data = OmegaConf.merge(dict.fromkeys(options), cfg.get("data", {}))
    cfg.test = OmegaConf.merge(DEFAULT_TEST_OPTIONS, cfg.get("test", {}))
    _apply_overrides(cfg, overrides)
    return cfg


def read_config(config_file: str) -> DictConfig:
    """Reads a LazyConfig `.py` file, or the `config.yaml` of an earlier run, as it is.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    if not Path(config_file).is_file():
        raise UserError(f"Config file {config_file!r} does not exist; name one with --config-file.")
    try:
        cfg = LazyConfig.load(config_file)
    except UNREADABLE as e:
        raise UserError(f"Config file {config_file} cannot be loaded: {type(e).__name__}: {e}") from e
    if not isinstance(cfg, DictConfig) or not cfg:
        raise UserError(f"Config file {config_file} holds no keys and values; is it a run's config.yaml?")
    return cfg


def build_model(cfg: DictConfig) -> nn.Module:
    """The model of a config, as initialised, on the CPU.

    Raises:
        UserError: its numbers do not fit together.
    """
    image_size = cfg.get("data", {}).get("image_size", 1)
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1:
        raise UserError(f"data.image_size={image_size} must be a whole number of pixels, at least 1.")
    try:
        return instantiate(cfg.model)
    except UserError:
        raise
    except (ValueError, TypeError, ArithmeticError, RuntimeError, AssertionError) as e:
        size = f" for data.image_size={cfg.data.image_size}" if "image_size" in cfg.get("data", {}) else ""
        raise UserError(f"The model of this config cannot be built{size}: {e}") from e


def _apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for text in overrides:
        if text.startswith("--"):
            raise UserError(f"Option {text} stands behind a key=value; put all options before the first of them.")
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as e:
            raise UserError(
                f"Override {text!r} is not of the form key=value; a value with brackets, commas or blanks needs quotes "
                f"of its own: \"key='a (1).jpg'\"."
            ) from e
        if override.is_sweep_override():
            raise UserError(
                f"Override {text!r} gives several values; decimals have a point, and lists brackets: [1,2]."
            )
        if not override.is_add():  # hydra's +key=value adds a key on purpose
            _check_key(cfg, override.key_or_group)
            _check_kind(override.key_or_group, override.value(), _current_value(cfg, override.key_or_group))
    try:
        LazyConfig.apply_overrides(cfg, list(overrides))
    except (KeyError, NotImplementedError) as e:
        raise UserError(f"Overrides cannot be applied: {e}") from e
    _check_epochs(cfg, {text.partition("=")[0].lstrip("+~") for text in overrides})


def _check_epochs(cfg: DictConfig, overridden: set[str]) -> None:
    """Raises UserError if the command line sets what `train.epochs` derives, or its companions without it."""
    for name, in_epochs in DERIVED_FROM_EPOCHS.items():
        if cfg.train.epochs is not None and name in overridden:
            raise UserError(
                f"{name} follows from train.epochs={cfg.train.epochs}: set {in_epochs} instead, or add "
                "train.epochs=null to count in iterations."
            )
        if cfg.train.epochs is None and in_epochs != "train.epochs" and in_epochs in overridden:
            raise UserError(f"{in_epochs} needs train.epochs; without it set {name}, in iterations.")


def _check_key(cfg: DictConfig, key: str) -> None:
    """Raises UserError unless `key` is in the config or is an argument of the callable it would be passed to."""
    node, path = cfg, []
    for part in key.split("."):
        if isinstance(node, ListConfig):
            if not (part.isdigit() and int(part) < len(node)):
                raise UserError(
                    f"Override {key!r}: {'.'.join(path)} has {len(node)} entries, {part!r} is none of them."
                )
            node = node[int(part)]
        elif isinstance(node, DictConfig):
            names = _arguments(node)
            if part not in node and names is not None and part not in names:
                close = difflib.get_close_matches(part, names, n=1)
                hint = (
                    f"did you mean {'.'.join([*path, close[0]])!r}?" if close else f"it has {', '.join(sorted(names))}."
                )
                raise UserError(f"Override {key!r}: {'.'.join(path) or 'the config'} has no {part!r}; {hint}")
            node = node.get(part)
        path.append(part)


def _check_kind(key: str, value: object, current: object) -> None:
    """Raises UserError if an override has text where the config has numbers, or true or false.

    Which numbers fit, and whether a list or null does, is for the receiver to say.
    """
    expected, given = ({_kind(leaf) for leaf in _leaves(v)} - {None} for v in (current, value))
    if expected == {"number"} and not given <= {"number"}:
        what = "a number" if isinstance(current, Real) else "numbers"
        raise UserError(f"{key}={value} must be {what}, such as {current}.")
    if expected == {"switch"} and "text" in given and key not in SWITCHES_OR_NAMES:
        raise UserError(f"{key}={value} must be true or false.")


def _kind(leaf: object) -> str | None:
    """None for what may stand for any kind: null, and a reference to another key."""
    if leaf is None or (isinstance(leaf, str) and "${" in leaf):
        return None
    return {bool: "switch", str: "text"}.get(type(leaf), "number" if isinstance(leaf, Real) else "other")


def _leaves(value: object) -> list:
    """The value itself, or what a list or dict of values holds."""
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for entry in value for leaf in _leaves(entry)] if isinstance(value, list | tuple) else [value]


def _current_value(cfg: DictConfig, key: str) -> object:
    """What stands at a key, or the default of the argument that is meant; None if neither can be told."""
    parent, _, name = key.rpartition(".")
    with suppress(OmegaConfBaseException):  # a reference to nothing
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if isinstance(node, DictConfig) and name not in node:
            return (_arguments(node) or {}).get(name)
        value = OmegaConf.select(cfg, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return None


def _arguments(node: DictConfig) -> dict[str, object] | None:
    """What may stand below a node, with defaults: its keys, and what its target accepts; None if that is anything."""
    names = dict.fromkeys(str(key) for key in node)
    if "_target_" not in node:
        return names
    target = locate(node._target_) if isinstance(node._target_, str) else node._target_
    try:
        parameters = inspect.signature(
            getattr(target, "__init__", target) if inspect.isclass(target) else target
        ).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    defaults = {name: None if p.default is p.empty else p.default for name, p in parameters.items() if name != "self"}
    return names | defaults
