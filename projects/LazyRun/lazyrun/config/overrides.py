"""`key=value` overrides of a config. The key must exist and the value must be of the right kind."""

import difflib
import inspect
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from numbers import Real
from typing import Any

from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lazyrun.config.lr_and_iterations import DERIVED_FROM_EPOCHS
from lazyrun.config.trust import check_targets
from pretrain.common.errors import UserError

__all__ = ["apply_overrides"]

SWITCHES_OR_NAMES = ("train.compile",)
"""False by default, but not only true and false are values."""

WHOLE = 2**31
"""What whole numbers stay below: many end in code that has no room for larger ones. A seed may be larger."""

PATH_KEYS = re.compile(
    r"data\.(train|val|cache|class_names|(train|val)_(json|images|labels))|train\.(output_dir|init_checkpoint)"
)
"""Keys whose values are paths, and taken as they are written."""


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Changes a config in place; what follows the `=` of a path is not parsed.

    Raises:
        UserError: a change is not of the form `key=value`, names nothing, is of another kind than the value before, or
            has a `_target_` that must not be called.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    others = []
    for text in overrides:
        if text.startswith("--"):
            raise UserError(f"Option {text} comes after a key=value; put all options before the first of them.")
        key, equals, value = text.partition("=")
        if equals and PATH_KEYS.fullmatch(key) and "${" not in value:
            _check_key(cfg, key)
            OmegaConf.update(cfg, key, _path(value))
            continue
        others.append(text)
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as e:
            raise UserError(
                f"Override {text!r} is not of the form key=value; a value with brackets, commas, blanks, letters "
                f"beyond a to z and the like needs quotes of its own: \"key='a (1)'\"."
            ) from e
        if override.is_sweep_override():
            raise UserError(
                f"Override {text!r} gives several values; decimals have a point, and lists brackets: [1,2]."
            )
        if not override.is_add():  # hydra's +key=value adds a key on purpose
            _check_key(cfg, override.key_or_group)
            _check_kind(override.key_or_group, override.value(), _current_value(cfg, override.key_or_group))
    try:
        LazyConfig.apply_overrides(cfg, others)
    except (KeyError, NotImplementedError, OmegaConfBaseException) as e:
        raise UserError(f"Overrides cannot be applied: {e}") from e
    for text in overrides:
        _check_references(cfg, text)
        _check_targets(cfg, text)
    _check_epochs(cfg, {text.partition("=")[0].lstrip("+~") for text in overrides})


def _path(value: str) -> str | None:
    """A path as it is written, without quotes around all of it, which the shell has left, and with `~` replaced."""
    if value == "null":
        return None
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" and not os.path.exists(value):
        value = value[1:-1].replace(f"\\{value[0]}", value[0])
    return value if os.path.exists(value) else os.path.expanduser(value)


def _check_epochs(cfg: DictConfig, overridden: set[str]) -> None:
    """Raises UserError if the command line sets what `train.epochs` derives, or its companions without it."""
    if not isinstance(cfg.train, DictConfig):
        return  # which is refused for itself
    for name, in_epochs in DERIVED_FROM_EPOCHS.items():
        if cfg.train.epochs is not None and name in overridden:
            raise UserError(
                f"{name} follows from train.epochs={cfg.train.epochs}: set {in_epochs} instead, or add "
                "train.epochs=null to count in iterations."
            )
        if cfg.train.epochs is None and in_epochs != "train.epochs" and in_epochs in overridden:
            raise UserError(f"{in_epochs} needs train.epochs; without it set {name}, in iterations.")


def _check_references(cfg: DictConfig, text: str) -> None:
    """Raises UserError for a value that refers to nothing, such as `${nothing}`, or stands for a missing one."""
    key, equals, value = text.lstrip("+").partition("=")
    if not equals or not ("$" in value or "???" in value):
        return
    try:
        found = OmegaConf.select(cfg, key, throw_on_missing=True)
        if OmegaConf.is_config(found):
            OmegaConf.to_container(found, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as e:
        raise UserError(f"{text} refers to what is not there: {' '.join(str(e).split())}") from e


def _check_targets(cfg: DictConfig, text: str) -> None:
    """Raises UserError if an override names what must not, or cannot, be called."""
    key, equals, value = text.lstrip("+").partition("=")
    if not equals or not ("_target_" in text or "$" in value):
        return
    with suppress(OmegaConfBaseException):  # keys of hydra's own forms
        found = OmegaConf.select(cfg, key)
        check_targets(key, OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found)
        node = OmegaConf.select(cfg, key.rpartition(".")[0]) if key.endswith("._target_") else {}
        taken = _parameters(locate(found)) if isinstance(found, str) and node else None
        unknown = [] if taken is None else sorted(str(k) for k in node if k not in (*taken, "_target_"))
        if unknown:
            raise UserError(f"{text}: {found} does not take {', '.join(unknown)}, which stand beside it.")


def _check_key(cfg: DictConfig, key: str) -> None:
    """Raises UserError unless `key` is in the config or is an argument of the callable it would be passed to."""
    node: Any = cfg
    path: list[str] = []
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
    """Raises UserError if an override has a value in place of keys, or text in place of numbers, or true or false, or
    a number that is out of reach: beyond 31 bits, or infinite where whole ones are.

    Which other numbers fit, and whether a list or null does, is for the receiver to say.
    """
    if isinstance(current, dict) and current and not isinstance(value, dict) and value is not None:
        raise UserError(
            f"{key}={value} must have keys and values; change single ones below it, such as "
            f"{key}.{next(iter(current))}."
        )
    expected, given = ({_kind(leaf) for leaf in _leaves(v)} - {None} for v in (current, value))
    if expected == {"number"} and not given <= {"number"}:
        what = "a number" if isinstance(current, Real) else "numbers"
        raise UserError(f"{key}={value} must be {what}, such as {current}.")
    if expected == {"switch"} and "text" in given and key not in SWITCHES_OR_NAMES:
        raise UserError(f"{key}={value} must be true or false.")
    whole = {type(leaf) for leaf in _leaves(current) if leaf is not None} == {int}
    for number in (leaf for leaf in _leaves(value) if _kind(leaf) == "number"):
        if isinstance(number, int) and abs(number) >= WHOLE and key != "train.seed":
            raise UserError(f"{key}={value}: whole numbers must be below 2**31.")
        if whole and not math.isfinite(number):
            raise UserError(f"{key}={value} must be a whole number, such as {current}.")


def _kind(leaf: object) -> str | None:
    """The kind of a value; None for null and for a reference to another key, which may be of any kind."""
    if leaf is None or (isinstance(leaf, str) and "${" in leaf):
        return None
    return {bool: "switch", str: "text"}.get(type(leaf), "number" if isinstance(leaf, Real) else "other")


def _leaves(value: object) -> list:
    """The value itself, or what a list or dict of values holds."""
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for entry in value for leaf in _leaves(entry)] if isinstance(value, list | tuple) else [value]


def _current_value(cfg: DictConfig, key: str) -> object:
    """The value of a key, or the default of the argument it names; None if neither is known."""
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
    taken = _parameters(locate(node._target_) if isinstance(node._target_, str) else node._target_)
    return None if taken is None else names | taken


def _parameters(target: Any) -> dict[str, object] | None:
    """What a class or function accepts, with defaults; None if that is anything, or unknown."""
    try:
        parameters = inspect.signature(
            getattr(target, "__init__", target) if inspect.isclass(target) else target
        ).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return {name: None if p.default is p.empty else p.default for name, p in parameters.items() if name != "self"}
