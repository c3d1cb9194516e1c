"""The options of sliced prediction in a config: `test.slice=640` and its companions."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from lazyrun.config.task import task_of
from lazyrun.slices import Slicing, SlicingError
from pretrain.common.errors import UserError

__all__ = ["SLICE_OPTIONS", "slicing_of"]

SLICE_OPTIONS = {
    "slice": None,
    "slice_overlap": Slicing.overlap,
    "slice_whole": Slicing.whole,
    "slice_metric": Slicing.metric,
    "slice_threshold": Slicing.threshold,
}
"""Keys below `test`, see :class:`lazyrun.slices.Slicing`; without `slice` nothing is sliced."""


def slicing_of(cfg: DictConfig, changes: Mapping[str, Any] | None = None) -> Slicing | None:
    """How a config's images are sliced; None if they are not.

    Args:
        changes: to some of :data:`SLICE_OPTIONS`.

    Raises:
        UserError: a value cannot be used, or the model is no detector.
        TypeError: a change has the name of no option.
    """
    options = {key: cfg.test.get(key, default) for key, default in SLICE_OPTIONS.items()} | dict(changes or {})
    try:
        slicing = Slicing.from_options(options)
    except SlicingError as e:
        raise UserError(str(e)) from e
    if slicing and (task := task_of(cfg).name) != "detection":
        raise UserError(f"slice={slicing.size} is for detectors, and the config's task is {task}; leave it out.")
    return slicing
