"""A run's output folder: whether it may be used, its log, its `config.yaml`."""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from detectron2.config import LazyConfig
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf

from lazyrun.engine.checkpoint import WEIGHTS_ALONE, newest_intact, resumable_files
from lazyrun.modeling.weights import weight_loader_packages
from pretrain.common.errors import UserError
from pretrain.common.files import replacing
from pretrain.common.output_folder import check_output_folder

__all__ = ["choose_output_dir", "find_run", "set_up_logging", "write_config"]

logger = logging.getLogger(__name__)


def find_run(folder: str | os.PathLike) -> tuple[Path, Path]:
    """The config of the run in a folder, and its best weights.

    Those are `model_best.pth`, without one the averaged weights of the end, without these the last checkpoint.

    Raises:
        UserError: the folder holds no run, or nothing of its weights yet.
    """
    folder = Path(folder)
    config = folder / "config.yaml"
    if folder.suffix == ".onnx":
        raise UserError(f"{folder} is an exported model: run it with python -m lazyrun.onnx_runner {folder} IMAGES.")
    if not config.is_file():
        raise UserError(f"{folder} holds no run: there is no {config}. Name the folder that train.output_dir named.")
    named = (folder / name for name in WEIGHTS_ALONE)
    weights = next((file for file in named if file.is_file()), None) or newest_intact(folder)
    if weights is None:
        raise UserError(f"{folder} holds no checkpoint yet; name weights, or train on with --resume.")
    logger.info(f"Weights of {folder}: {weights.name}")
    return config, weights


def choose_output_dir(cfg: DictConfig, *, resume: bool, eval_only: bool) -> Path:
    """The folder that a run writes to: `train.output_dir`, or `eval` in it, so that an evaluation leaves the training's
    config and log as they are.

    Raises:
        UserError: it holds a run that would be overwritten, is the name of a file, or no name.
    """
    check_output_folder("train.output_dir", cfg.train.output_dir)
    folder = Path(cfg.train.output_dir)
    if not (eval_only or resume) and resumable_files(folder):
        raise UserError(
            f"{folder} already holds a run; add --resume to continue it, or name another folder with train.output_dir=…"
        )
    # detectron2 takes names of these suffixes for those of log files, and would write into them.
    if (folder.exists() and not folder.is_dir()) or folder.suffix in (".txt", ".log"):
        raise UserError(f"train.output_dir={folder} is the name of a file; name a folder.")
    return folder / "eval" if eval_only else folder


def set_up_logging(folder: Path | None, package: str) -> None:
    """Sends the messages of all packages that take part to the console, and to `log.txt` in a folder.

    Args:
        folder: None writes no file.
        package: of the task, besides the general ones.
    """
    output = None if folder is None else str(folder)
    for name in dict.fromkeys(("fvcore", "detectron2", "lazyrun", "pretrain", *weight_loader_packages(), package)):
        for handler in setup_logger(output, distributed_rank=comm.get_rank(), name=name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream not in (sys.stdout, sys.stderr):
                handler.handleError = partial(_end_log, handler)  # type: ignore[method-assign]


def _end_log(handler: logging.StreamHandler, record: logging.LogRecord) -> None:
    """Says once that a log cannot be written, instead of a traceback for each message; the run goes on."""
    stream = handler.stream
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        logging.Handler.handleError(handler, record)
    elif not getattr(stream, "ended", False):
        stream.ended = True
        print(f"warning: {stream.name} could not be written: {error.strerror}; it ends here.", file=sys.stderr)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # also for what it still holds and would write when it is closed
        os.close(nowhere)


def log_surroundings(args: Namespace) -> None:
    """Notes in the log what a run was started with, and on what."""
    logger.info(f"Rank of current process: {comm.get_rank()}. World size: {comm.get_world_size()}")
    logger.info(f"Environment info:\n{collect_env_info()}")
    logger.info(f"Command line arguments: {args}")
    logger.info(f"Contents of {args.config_file}:\n{Path(args.config_file).read_text()}")


@contextmanager
def _failed_writes() -> Iterator[list[OSError]]:
    """Collects what detectron2 logs with a traceback, and then goes on, when the config's file cannot be written."""
    failed: list[OSError] = []

    def is_something_else(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, OSError):
            failed.append(error)
        return not isinstance(error, OSError)

    config_logger = logging.getLogger(LazyConfig.__module__)
    config_logger.addFilter(is_something_else)
    try:
        yield failed
    finally:
        config_logger.removeFilter(is_something_else)


def write_config(cfg: DictConfig) -> None:
    """Writes `config.yaml`, in place of an earlier run's, once nothing is left that this run could be refused for.

    Raises:
        OSError: it cannot be written.
    """
    if not comm.is_main_process():
        return
    cfg = cfg.copy()
    OmegaConf.set_readonly(cfg, False)  # detectron2 replaces classes by their names on the way
    output_dir = Path(cfg.train.output_dir)
    with TemporaryDirectory(prefix="config-") as folder:
        with _failed_writes() as failed:
            LazyConfig.save(cfg, f"{folder}/config.yaml")  # and config.yaml.pkl, of what YAML cannot hold
        if failed:
            raise failed[0]
        for file in Path(folder).iterdir():
            with replacing(output_dir / file.name) as temporary:
                temporary.write_bytes(file.read_bytes())
