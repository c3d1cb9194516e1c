"""Progress and results: console, one JSON line per epoch, TensorBoard."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pretrain.common.temporary import naming_file, replacing

__all__ = ["MetricWriter", "Progress"]

logger = logging.getLogger(__name__)


class Progress:
    """Speed since the last report: images per second, share of time spent waiting for data, time left.

    Args:
        images_per_step: effective batch size.
        total_steps: optimizer steps of the whole run.
    """

    def __init__(self, images_per_step: int, total_steps: int):
        self.images_per_step, self.total_steps = images_per_step, total_steps
        self.reset()

    def reset(self) -> None:
        self.start = time.perf_counter()
        self.waited, self.steps = 0.0, 0

    def report(self, steps_done: int) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self.start, 1e-9)
        per_step = elapsed / max(self.steps, 1)
        values = {
            "images_per_second": self.images_per_step * self.steps / elapsed,
            "data_wait": self.waited / elapsed,
            "eta_seconds": per_step * (self.total_steps - steps_done),
        }
        self.reset()
        return values


class MetricWriter:
    """Writes `log.jsonl` and TensorBoard events to a run's directory.

    Args:
        epoch: the epoch training (re)starts at; lines of that one and later ones, left by a run that was killed, go.
    """

    def __init__(self, output_dir: Path, epoch: int, step: int):
        self.path = output_dir / "log.jsonl"
        self.events = output_dir / "events.out.tfevents"
        if self.path.exists():
            lines = [line for line in self.path.read_text().splitlines(True) if _epoch_of(line) < epoch]
            with replacing(self.path) as temporary:
                temporary.write_text("".join(lines))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.warning("No TensorBoard files are written: the package tensorboard is not installed.")
            self.tensorboard = None
        else:
            with naming_file(self.events):
                self.tensorboard = SummaryWriter(output_dir, purge_step=step)

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self.tensorboard:
            with naming_file(self.events):
                for name, value in values.items():
                    self.tensorboard.add_scalar(name, value, step)

    def picture(self, image: Image.Image, step: int) -> None:
        if self.tensorboard:
            with naming_file(self.events):
                self.tensorboard.add_image("reconstructions", np.asarray(image), step, dataformats="HWC")

    def results(self, facts: dict[str, Any], measured: dict[str, float], epoch: int) -> None:
        """A line of `log.jsonl` and of the console; TensorBoard has what was measured alone, after `epoch` epochs."""
        values = facts | measured
        with naming_file(self.path), open(self.path, "a") as f:
            f.write(json.dumps(values) + "\n")
        self.scalars({f"epoch/{name}": value for name, value in measured.items()}, epoch)
        logger.info(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()))

    def close(self) -> None:
        if self.tensorboard:
            with naming_file(self.events):
                self.tensorboard.close()


def _epoch_of(line: str) -> float:
    """Epoch of a line of `log.jsonl`; infinite for one that a kill cut short."""
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError):
        return float("inf")
