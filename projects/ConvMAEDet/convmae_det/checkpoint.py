"""Checkpoints of detection runs: written whole or not at all, read without running code, and never half matched."""

import logging
import os
from pathlib import Path
from urllib.parse import urlparse

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretrain.checkpoint import load_checkpoint, replacing, save_atomically
from pretrain.checkpoint_kinds import recognise
from pretrain.convert import Target, check_loads, convert, target_for
from pretrain.errors import UserError

__all__ = ["RunCheckpointer", "load_weights"]

logger = logging.getLogger(__name__)


class RunCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer whose files survive a kill at any moment.

    Both the checkpoint and the `last_checkpoint` tag are written to a temporary name and renamed.

    Attributes:
        categories: `{"id", "name"}` of each class, stored in every file; None stores none.
    """

    categories: list[dict] | None = None

    def save(self, name: str, **extra) -> None:
        """Saves the model, all checkpointables and `extra` as `<save_dir>/<name>.pth` and tags it as the last."""
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info(f"Saving checkpoint to {path}")
        state = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        save_atomically({"model": self.model.state_dict(), **self._classes(), **state, **extra}, path)
        self.tag_last_checkpoint(path.name)

    def save_weights(self, name: str, **extra) -> None:
        """Saves the model and `extra` alone; the file is not tagged, so `--resume` does not begin from it."""
        if self.save_dir and self.save_to_disk:
            content = {"model": self.model.state_dict(), **self._classes(), **extra}
            save_atomically(content, Path(self.save_dir) / f"{name}.pth")

    def _classes(self) -> dict:
        return {"categories": self.categories} if self.categories else {}

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag = Path(self.save_dir) / "last_checkpoint"
        with replacing(tag) as temporary:
            temporary.write_text(last_filename_basename)

    def _load_file(self, filename: str) -> dict:
        # detectron2 unpickles files of these suffixes; reading them as all others says why they are not read.
        unpickled = filename.endswith((".pkl", ".pyth"))
        return self._torch_load(filename) if unpickled else super()._load_file(filename)

    def _torch_load(self, f: str) -> dict:
        return load_checkpoint(f)

    def _log_incompatible_keys(self, incompatible) -> None:
        """A run goes on with all of its weights, or not at all; the optimizer's state would not fit others either."""
        wrong = list(dict.fromkeys([*(name for name, *_ in incompatible.incorrect_shapes), *incompatible.missing_keys]))
        if wrong:
            raise UserError(
                f"The run in {self.save_dir} cannot be continued with this config: {len(wrong)} weights of its last "
                f"checkpoint are missing or of another shape, such as {wrong[0]}; give the config and overrides that "
                "it began with, or begin another run with train.init_checkpoint=… and another train.output_dir=…"
            )
        super()._log_incompatible_keys(incompatible)


def load_weights(model: nn.Module, path: str, *, strict: bool, source: str = "train.init_checkpoint") -> None:
    """Loads a checkpoint's weights into a detector or segmentation model, without optimizer or iteration.

    A pretraining file (or classifier, or bare trunk) is converted on the way and the report of the conversion logged.
    So is any file for a segmentation model, whose own may be for images of another size.

    Args:
        model: a detector or segmentation model, possibly wrapped for distributed training.
        path: a file, or a URL that detectron2 understands; empty leaves the model as it is.
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
        if _is_for_detectron2(path, target_for(n for n, _ in model.named_parameters())):
            _load_detector(model, path, strict)
        else:
            _convert_and_load(model, path, strict)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{source}: {e}") from e
    except UserError:
        raise
    except ValueError as e:
        raise UserError(f"{source}: {e}") from e
    except OSError as e:
        raise UserError(f"{source}: {path} cannot be read: {e}") from e


def _is_for_detectron2(path: str, target: Target) -> bool:
    """Whether detectron2 matches the names itself: of URLs, as of its model zoo, and of detectors for detectors.

    Raises:
        ValueError: a local file that cannot be read without running code, such as a `.pkl`.
    """
    if urlparse(path).scheme or "?" in path:
        return True
    if target is Target.SEGMENTATION:
        return False
    content = load_checkpoint(path)
    names = content.get("model", content) if isinstance(content, dict) else ()
    return any(n.removeprefix("module.").startswith("backbone.") for n in names)


def _convert_and_load(model: nn.Module, path: str, strict: bool) -> None:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    target = target_for(shapes)
    state, report = convert(recognise(path), target, shapes)
    if strict and report.missing:
        name, reason = next(iter(report.missing.items()))
        model_name = "detector" if target is Target.DETECTION else "segmentation model"
        raise UserError(
            f"{path} ({report.kind}) lacks {len(report.missing)} weights of the {model_name}, such as {name} "
            f"({reason}): train it first, an evaluation needs all of them."
        )
    check_loads(model, state, report)
    logger.info(f"Converted for this model:\n{report}")


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


class _ReportingCheckpointer(RunCheckpointer):
    """Keeps what did and did not match, whatever it is."""

    def _log_incompatible_keys(self, incompatible) -> None:
        self.incompatible = incompatible
        DetectionCheckpointer._log_incompatible_keys(self, incompatible)
