"""Checkpoints of detection runs: written whole or not at all, read without running code, and never half matched."""

import logging
import os
from pathlib import Path
from typing import Any

from torch import nn

from lazyrun.modeling.weights import SafeCheckpointer
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, replacing, save_atomically
from pretrain.common.sharding import is_sharded, sliced_as, whole_content
from pretrain.common.tensors import first_non_finite

__all__ = ["RunCheckpointer", "earlier_checkpoints", "newest_intact", "resumable_files"]

logger = logging.getLogger(__name__)

TAG = "last_checkpoint"
"""File in a run's folder with the name of the checkpoint to resume from."""

WEIGHTS_ALONE = ("model_best.pth", "model_final_ema.pth")
"""Files of a run that it cannot go on from."""


def resumable_files(folder: str | os.PathLike) -> list[Path]:
    """Checkpoints that the run in a folder may go on from: the one last tagged, then the others from the newest."""
    files = [file for file in Path(folder).glob("model_*.pth") if file.name not in WEIGHTS_ALONE]
    tag = Path(folder) / TAG
    tagged = tag.read_bytes().decode(errors="replace").strip() if tag.is_file() else ""
    return sorted(files, key=lambda file: (file.name == tagged, file.lstat().st_mtime_ns), reverse=True)


def earlier_checkpoints(folder: str | os.PathLike, iteration: int) -> list[str]:
    """Numbered checkpoints from before an iteration, oldest first, as detectron2 counts those that it keeps.

    Later ones, such as a damaged one that the run went past, are written anew. If they counted as well, an older file
    would be removed for them, and then the new file of their name.
    """
    files = [file for file in Path(folder).glob("model_*.pth") if file.stem.removeprefix("model_").isdecimal()]
    return [str(file) for file in sorted(files) if int(file.stem.removeprefix("model_")) < iteration]


def newest_intact(folder: str | os.PathLike) -> Path | None:
    """The first of :func:`resumable_files` that can be read; says which ones could not. None without any file.

    Raises:
        UserError: there are some, and none can be read.
    """
    files = resumable_files(folder)
    for file in files:
        try:
            content = load_checkpoint(file)
        except (UserError, FileNotFoundError) as e:  # the latter of a link to a disk that is gone
            logger.warning(f"{e} Looking for an older checkpoint of this run.")
            continue
        if isinstance(content, dict) and "model" in content:
            return file
        logger.warning(f"{file} is no checkpoint of a run. Looking for an older one.")
    if files:
        raise UserError(
            f"None of the {len(files)} checkpoints in {folder} can be resumed from; begin another run with another "
            "train.output_dir=…"
        )
    return None


def _check_finite(content: dict, path: Path) -> None:
    """Raises UserError rather than let a checkpoint with NaN or infinite numbers follow good ones."""
    if found := first_non_finite(content):
        raise UserError(
            f"{path} is not written: there are {found}. The last checkpoint is intact: continue from it with --resume "
            "at a lower optimizer.lr or with train.clip_grad=1.0."
        )


class RunCheckpointer(SafeCheckpointer):
    """detectron2's checkpointer whose files survive a kill at any moment.

    Both the checkpoint and the `last_checkpoint` tag are written to a temporary name and renamed. The first process
    writes; if the model shares out its weights, all have to call the methods that save. The files are the same then, so
    that any number of processes goes on from them, and every command loads them.

    Attributes:
        categories: `{"id", "name"}` of each class, stored in every file; None stores none.
    """

    categories: list[dict] | None = None
    _saved: Path | None = None

    def has_checkpoint(self) -> bool:
        return bool(resumable_files(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """What was saved last, or else the newest checkpoint that can be read; empty without any."""
        # detectron2 asks after each save: a gigabyte is not read again for its name.
        return str(self._saved or newest_intact(self.save_dir) or "")

    def save(self, name: str, **extra: Any) -> None:
        """Saves the model, all checkpointables and `extra` as `<save_dir>/<name>.pth` and tags it as the last."""
        if self._takes_part():
            logger.info(f"Saving checkpoint to {Path(self.save_dir) / name}.pth")
            state = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
            if path := self._write(name, {"model": self.model.state_dict(), **self._classes(), **state, **extra}):
                self._saved = path
                self.tag_last_checkpoint(path.name)

    def save_weights(self, name: str, model: nn.Module | None = None, **extra: Any) -> None:
        """Saves a model, by default the trained one, and `extra` alone; `--resume` does not begin from such a file."""
        if self._takes_part():
            self._write(name, {"model": (model or self.model).state_dict(), **self._classes(), **extra})

    def _takes_part(self) -> bool:
        return bool(self.save_dir) and (self.save_to_disk or is_sharded(self.model))

    def _write(self, name: str, content: dict) -> Path | None:
        """The file, in the process that writes it; tensors that are shared out are brought together there."""
        if is_sharded(self.model):
            content = whole_content(content, kept=self.save_to_disk)
        if not self.save_to_disk:
            return None
        path = Path(self.save_dir) / f"{name}.pth"
        _check_finite(content, path)
        save_atomically(content, path)
        return path

    def _load_model(self, checkpoint: dict) -> Any:
        owners = dict(self.model.named_parameters())
        checkpoint["model"].update({k: sliced_as(tensor, owners.get(k)) for k, tensor in checkpoint["model"].items()})
        return super()._load_model(checkpoint)

    def _classes(self) -> dict:
        return {"categories": self.categories} if self.categories else {}

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag = Path(self.save_dir) / TAG
        with replacing(tag) as temporary:
            temporary.write_text(last_filename_basename)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """A run continues with all of its weights or not at all: the optimizer's state would not fit others either."""
        wrong = list(dict.fromkeys([*(name for name, *_ in incompatible.incorrect_shapes), *incompatible.missing_keys]))
        if wrong:
            raise UserError(
                f"The run in {self.save_dir} cannot be continued with this config: {len(wrong)} weights of its last "
                f"checkpoint are missing or of another shape, such as {wrong[0]}; give the config and overrides that "
                "it began with, or begin another run with train.init_checkpoint=… and another train.output_dir=…"
            )
        super()._log_incompatible_keys(incompatible)
