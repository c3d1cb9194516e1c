"""Where a run's numbers go: console, `metrics.json`, TensorBoard, Weights & Biases, chosen by `train.writers`."""

import logging
import uuid
from pathlib import Path

from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter, get_event_storage
from omegaconf import DictConfig

from lazyrun.config.checks import WRITERS
from pretrain.common.temporary import naming_file, replacing

__all__ = ["MetricsFile", "WandbWriter", "build_writers"]

logger = logging.getLogger(__name__)


def build_writers(cfg: DictConfig) -> list[EventWriter]:
    """The writers that `train.writers` names, for the output folder of the run.

    Args:
        cfg: config of the run; `train.wandb` holds arguments of `wandb.init`, such as project, name and mode.
    """
    output_dir = Path(cfg.train.output_dir)
    make = {
        # The console's writer also measures the time left, which the others then write.
        "console": lambda: CommonMetricPrinter(cfg.train.max_iter),
        "json": lambda: MetricsFile(output_dir / "metrics.json"),
        "tensorboard": lambda: TensorboardXWriter(str(output_dir)),
        "wandb": lambda: WandbWriter(output_dir, dict(cfg.train.wandb)),
    }
    return [make[name]() for name in WRITERS if name in cfg.train.writers]


class MetricsFile(JSONWriter):
    """detectron2's writer of JSON lines, which leaves no half of a line before those of a resumed run.

    Args:
        path: of the file, which is continued if it exists.
    """

    def __init__(self, path: Path):
        self.path = path
        if path.exists():
            complete, _, rest = path.read_bytes().rpartition(b"\n")
            if rest:  # of a run that was killed, or whose disk was full
                with replacing(path) as temporary:
                    temporary.write_bytes(complete + b"\n" if complete else b"")
        super().__init__(str(path))

    def write(self) -> None:
        with naming_file(self.path):
            super().write()


class WandbWriter(EventWriter):
    """Writes all scalars to Weights & Biases; a resumed run continues the same one there.

    Args:
        output_dir: of the run; its id at Weights & Biases is kept in `wandb_id` there.
        arguments: of `wandb.init`; `dir`, `id` and `resume` are set here, and `name` unless given.
        window_size: scalars are medians over so many iterations, as in detectron2's other writers.
    """

    def __init__(self, output_dir: Path, arguments: dict, window_size: int = 20):
        import wandb

        tag = output_dir / "wandb_id"
        if not tag.exists():
            tag.write_text(uuid.uuid4().hex[:12])
        arguments = {"name": output_dir.name} | {key: value for key, value in arguments.items() if value is not None}
        self.run = wandb.init(**arguments, dir=str(output_dir), id=tag.read_text(), resume="allow")
        self.window_size = window_size
        self.last_write = -1

    def write(self) -> None:
        new: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self.window_size).items():
            if iteration > self.last_write:
                new.setdefault(iteration, {})[name] = value
        for iteration in sorted(new):
            self.run.log(new[iteration], step=iteration)
            self.last_write = iteration

    def close(self) -> None:
        self.run.finish()
