"""What a run's `config.yaml` and overrides may name: they say what is called, so a stranger's could run any program."""

import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import locate

from lazyrun.config.trust_option import trusts_configs
from pretrain.common.errors import UserError

__all__ = ["check_targets", "read_yaml", "trust_packages"]

ALLOWED = [
    *("lazyrun.config.schedule", "lazyrun.data", "lazyrun.detection", "lazyrun.evaluation", "lazyrun.modeling"),
    *("detectron2.data", "detectron2.evaluation", "detectron2.layers", "detectron2.modeling", "detectron2.solver"),
    *("torch.nn", "torch.optim", "timm.layers", "timm.models", "timm.optim", "timm.scheduler"),
    *("fvcore.common.param_scheduler", "fvcore.nn"),
]
"""Packages and modules whose classes and functions make models, data loaders, optimizers and their like."""

REFUSED = ["timm.models._factory", "timm.models._helpers", "timm.models._hub"]
"""Parts of them that load files or start commands, which can run code in their turn."""

_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")
"""An OmegaConf interpolation that calls something, such as `${oc.create:…}`, which makes nodes out of text."""

_YAML = "tag:yaml.org,2002:python/"


def trust_packages(*names: str, refused: Sequence[str] = ()) -> None:
    """Adds packages of models to :data:`ALLOWED`, and parts of them to :data:`REFUSED`.

    Whoever writes a config may call what the packages hold, with any arguments.
    """
    ALLOWED.extend(names)
    REFUSED.extend(refused)


def read_yaml(config_file: str | Path) -> Any:
    """Reads YAML with the tags that a run writes: tuples, classes and functions by name, partials, `ShapeSpec`.

    Names, those of `_target_` as well, must be classes or functions of :data:`ALLOWED`, unless `--trust-config` is
    given: then any object is made, and code that the file holds is run.

    Raises:
        UserError: the file names anything else.
        yaml.YAMLError: it is no YAML, or has other tags.
    """
    text = Path(config_file).read_text(encoding="utf-8")
    if trusts_configs():
        return yaml.unsafe_load(text)
    content = yaml.load(text, Loader=_RunLoader)
    for key, value in _entries(content):
        if key == "_target_" and isinstance(value, str):
            _check_name(value)
        elif key == "_target_" and isinstance(value, dict | list):
            raise UserError(f"_target_={value} must be the name of a class or function")
        elif isinstance(value, str) and _RESOLVER.search(value):
            raise _refusal(value)
    return content


def check_targets(key: str, value: Any) -> None:
    """Checks the names that an override gives as `_target_`, at any depth; objects of a Python config stay unchecked.

    The limits are those of a YAML file: an override may come with a copied command line, and is in the run's
    `config.yaml` afterwards.

    Args:
        key: of the override, such as `model.backbone._target_`.
        value: what the key holds then, with references resolved.

    Raises:
        UserError: a `_target_` is no name, names nothing that can be called, or what may not be called without
            `--trust-config`.
    """
    for name, target in _entries({key.rpartition(".")[2]: value}):
        if name != "_target_" or callable(target):
            continue
        shown = f"{key}={target}" if key.endswith("_target_") else f"{key} with _target_={target}"
        if isinstance(target, str) and not trusts_configs() and _is_refused(target):
            raise UserError(
                f"{shown} may not be called: only classes and functions of the packages that make models, data and "
                "optimizers are. If you trust it, add --trust-config."
            )
        if not isinstance(target, str) or not callable(_find(target)):
            raise UserError(f"{shown} must be the name of a class or function that can be imported.")


def _entries(content: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and values at any depth; those of lists and tuples have no key, and keys come as values as well."""
    seen: set[int] = set()
    waiting = [(None, content)]
    while waiting:
        key, value = waiting.pop()
        yield key, value
        if isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # of an anchor
            if isinstance(value, dict):
                waiting += value.items()
                waiting += [(None, name) for name in value]
            else:
                waiting += [(None, entry) for entry in value]


def _is_allowed(name: str) -> bool:
    def within(packages: Sequence[str]) -> bool:
        return any(name == package or name.startswith(f"{package}.") for package in packages)

    return within(ALLOWED) and not within(REFUSED)


def _check_name(name: str) -> None:
    """Raises UserError unless a name may be called."""
    if _is_refused(name):
        raise _refusal(name)


def _is_refused(name: str) -> bool:
    """Whether a name may not be called; what cannot be found cannot be called either."""
    if not _is_allowed(name):
        return True
    found = _find(name)
    # A module's attributes may come from elsewhere, such as torch.nn.modules.module.warnings.
    callable_here = inspect.isclass(found) or inspect.isroutine(found)
    return found is not None and not (callable_here and _is_allowed(found.__module__ or ""))


def _find(name: str) -> Any:
    try:
        return locate(name)
    except Exception:  # of a module that is imported and fails; whoever needs it says what is wrong
        return None


def _refusal(name: str) -> UserError:
    return UserError(
        f"it names {name}, which a run's YAML config may not: only classes and functions of the packages that make "
        "models, data and optimizers are called. If you trust the file, add --trust-config"
    )


class _RunLoader(yaml.SafeLoader):
    """Knows the tags that :meth:`detectron2.config.LazyConfig.save` writes for configs of this project."""


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))


def _name(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    _check_name(suffix)
    found = _find(suffix)
    if found is None:
        raise UserError(f"it names {suffix}, which does not exist")
    return found


def _partial(loader: yaml.SafeLoader, node: yaml.MappingNode) -> functools.partial:
    function, args, keywords, _ = loader.construct_mapping(node, deep=True)["state"]
    if not inspect.isclass(function) and not inspect.isroutine(function):  # of _name, which has checked it
        raise UserError(f"it has a partial of {function}, which is no function")
    return functools.partial(function, *args, **keywords)


def _shape_spec(loader: yaml.SafeLoader, node: yaml.MappingNode) -> ShapeSpec:
    return ShapeSpec(**{str(key): value for key, value in loader.construct_mapping(node, deep=True).items()})


_RunLoader.add_constructor(f"{_YAML}tuple", _tuple)
_RunLoader.add_multi_constructor(f"{_YAML}name:", _name)
_RunLoader.add_constructor(f"{_YAML}object/apply:functools.partial", _partial)
_RunLoader.add_constructor(f"{_YAML}object:{ShapeSpec.__module__}.{ShapeSpec.__qualname__}", _shape_spec)
