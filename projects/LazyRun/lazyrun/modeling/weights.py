"""Loading weights into a model: whole, without running code from the file, and never half matched."""

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lazyrun.data.weight_names import local_weights
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint

__all__ = [
    "SafeCheckpointer",
    "WeightLoader",
    "load_weights",
    "register_weight_loader",
    "weight_loader_packages",
]

WeightLoader = Callable[[nn.Module, str, bool], bool]
"""Called as `loader(model, path, strict)`: loads a file that it knows into a model that it knows and returns True, or
leaves both alone and returns False."""

_LOADERS: list[WeightLoader] = []


def register_weight_loader(loader: WeightLoader) -> WeightLoader:
    """Has :func:`load_weights` ask a loader first, for files that hold another kind of model, such as pretraining."""
    _LOADERS.append(loader)
    return loader


def weight_loader_packages() -> list[str]:
    """Packages of the registered loaders, whose log messages belong to a run's."""
    return [loader.__module__.partition(".")[0] for loader in _LOADERS]


class SafeCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, which reads files without running code that they hold."""

    def _load_file(self, filename: str) -> dict:
        # detectron2 unpickles files of these suffixes; reading them as all others says why they are not read.
        unpickled = filename.endswith((".pkl", ".pyth"))
        return self._torch_load(filename) if unpickled else super()._load_file(filename)

    def _torch_load(self, f: str) -> dict:
        return load_checkpoint(f)


def load_weights(model: nn.Module, path: str, *, strict: bool, source: str = "train.init_checkpoint") -> None:
    """Loads a checkpoint's weights into a model, without optimizer or iteration.

    Registered loaders (:func:`register_weight_loader`) are asked first; what none of them knows must be a checkpoint of
    this model.

    Args:
        model: possibly wrapped for distributed training.
        path: a file, the name or address of one (:func:`lazyrun.data.weight_names.local_weights`), or a URL that
            detectron2 understands; empty leaves the model as it is.
        strict: every weight of the model must be in the file, as an evaluation needs. Without it heads of another
            number of classes may differ, as fine-tuning needs; each weight left as initialised is logged.
        source: where the path comes from, in front of messages.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file cannot be read, holds nothing of this model, or lacks some of it under `strict`.
    """
    if not path:
        return
    model = model.module if isinstance(model, DistributedDataParallel) else model
    try:
        path = local_weights(path)
        if _is_remote(path):
            _load_detector(model, path, strict)
            return
        load_checkpoint(path)  # says what is wrong with the file before anything looks into it
        if not any(loader(model, path, strict) for loader in _LOADERS):
            _load_detector(model, path, strict)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{source}: {e}") from e
    except UserError as e:
        raise UserError(f"{source}: {e}") from e
    except OSError as e:
        raise UserError(f"{source}: {path} cannot be read: {e}") from e


def _is_remote(path: str) -> bool:
    """Whether a path is one of detectron2's model zoo, a URL, or has options for detectron2 behind a question mark."""
    return bool(urlparse(path).scheme) or "?" in path


def _load_detector(model: nn.Module, path: str, strict: bool) -> None:
    local = path.split("?")[0]
    if not os.path.isfile(PathManager.get_local_path(local)):  # of a URL after it was fetched
        raise FileNotFoundError(f"Checkpoint {local} does not exist.")
    loader = _ReportingCheckpointer(model)
    loader.load(path)
    wrong_shape = [name for name, *_ in loader.incompatible.incorrect_shapes]
    # PyTorch fills in the counters of batch norms without saying so.
    names = len([name for name in model.state_dict() if not name.endswith("num_batches_tracked")])
    missing = [name for name in loader.incompatible.missing_keys if name not in wrong_shape]
    if len(missing) + len(wrong_shape) >= names or (strict and (missing or wrong_shape)):
        examples = [*missing, *wrong_shape]
        raise UserError(
            f"Checkpoint {path} does not fit the model: {len(missing)} of {names} weights are missing and "
            f"{len(wrong_shape)} have another shape (such as {examples[0]}); is it from another config? A run's own "
            "config.yaml fits its checkpoints."
        )


class _ReportingCheckpointer(SafeCheckpointer):
    """Keeps what did and did not match, without judging it."""

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        self.incompatible = incompatible
        DetectionCheckpointer._log_incompatible_keys(self, incompatible)
