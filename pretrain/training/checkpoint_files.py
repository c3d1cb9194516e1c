"""Which checkpoints a run's directory holds: the newest few, written whole, damaged ones passed over."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, save_atomically
from pretrain.common.sharded_files import load_skeleton, save_sharded
from pretrain.common.temporary import remove_folder

__all__ = ["Checkpoints", "ShardedCheckpoints", "load_unfilled"]

logger = logging.getLogger(__name__)


def load_unfilled(path: Path) -> Any:
    """What a checkpoint holds; of a folder without its slices, in whose place are tensors of the `meta` device.

    Raises:
        FileNotFoundError, UserError: it is missing, damaged or no checkpoint.
    """
    return load_skeleton(path) if path.is_dir() else load_checkpoint(path)


class Checkpoints:
    """The checkpoints of a run's directory: files `checkpoint-STEP.pth`, of runs that share out their weights folders
    `checkpoint-STEP`; only the newest few are kept.

    Attributes:
        damaged: those that could not be read when the newest was looked for.
        saved_by_all: whether every process calls :meth:`save`, or the main one alone.
    """

    saved_by_all = False

    def __init__(self, output_dir: Path, keep: int):
        self.output_dir, self.keep = output_dir, keep
        self.damaged: list[Path] = []

    def files(self) -> list[Path]:
        """Full checkpoints, newest first: the optimizer steps in their names only ever grow in a run."""
        paths = [p for p in self.output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+(\.pth)?", p.name)]
        return sorted(paths, key=_step_of, reverse=True)

    def save(self, state: Mapping[str, Any], step: int) -> Path:
        """Writes the newest checkpoint, then removes the oldest others.

        Args:
            step: optimizer steps since the run began, whatever batch sizes they had.
        """
        path = self.output_dir / f"checkpoint-{step:08d}.pth"
        save_atomically(state, path)
        self._remove_old(path)
        return path

    def _remove_old(self, newest: Path) -> None:
        for old in [p for p in self.files() if p != newest][self.keep - 1 :]:
            remove_folder(old) if old.is_dir() else old.unlink(missing_ok=True)

    def find(self, resume: str) -> Path | None:
        """The checkpoint that `--resume` means: None to start afresh. `auto` passes over those that cannot be read.

        Raises:
            UserError: the directory already holds a run that would be overwritten or would hide the new files, or none
                of its checkpoints can be read.
        """
        if resume == "auto":
            return self._newest_intact()
        if resume:
            return Path(resume)
        if newest := next(iter(self.files()), None):
            raise UserError(
                f"{self.output_dir} already holds {newest.name}; continue it with --resume auto, or choose "
                "another --output_dir."
            )
        return None

    def _newest_intact(self) -> Path | None:
        self.damaged, first = [], ""
        for path in self.files():
            try:
                load_unfilled(path)
            except (UserError, FileNotFoundError) as e:  # the latter of a link to a disk that is gone
                logger.warning("%s Looking for an earlier checkpoint of this run.", e)
                self.damaged.append(path)
                first = first or str(e)
            else:
                return path
        if self.damaged:
            raise UserError(f"{first} None of the {len(self.damaged)} checkpoints in {self.output_dir} can be read.")
        return None

    def set_damaged_aside(self) -> None:
        """Renames the files that could not be read, as their steps may be greater than those still to come."""
        for path in self.damaged:
            aside = path.with_name(f"{path.name}.damaged")
            if aside.is_dir():  # of the same step, damaged before; in the way unless both are files
                remove_folder(aside)
            elif path.is_dir():
                aside.unlink(missing_ok=True)
            path.rename(aside)
            logger.warning("%s is %s now.", path, aside.name)
        self.damaged = []

    def check_newest(self, path: Path, step: int) -> None:
        """Makes sure that what is saved after resuming `path`, a checkpoint of `step`, will be the newest.

        Raises:
            UserError: the directory holds a later checkpoint.
        """
        newest = next((file for file in self.files() if file not in self.damaged), None)
        if newest and _step_of(newest) > step:
            raise UserError(
                f"{path} is of step {step}, but {self.output_dir} holds the later {newest.name}; continue that with "
                "--resume auto, or choose another --output_dir."
            )


class ShardedCheckpoints(Checkpoints):
    """Those that are written as folders, to which every process adds its slices."""

    saved_by_all = True

    def __init__(self, output_dir: Path, keep: int, world: World):
        super().__init__(output_dir, keep)
        self.world = world

    def save(self, state: Mapping[str, Any], step: int) -> Path:
        path = self.output_dir / f"checkpoint-{step:08d}"
        save_sharded(state, path, self.world)
        if self.world.is_main:
            self._remove_old(path)
        return path


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
