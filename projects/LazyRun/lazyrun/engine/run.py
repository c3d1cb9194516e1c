"""One run in this process: resolve the config, build the model, then train, evaluate or rehearse."""

import logging
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig
from torch import nn

from lazyrun.config.changes import suspecting
from lazyrun.config.data_options import temporary_cache
from lazyrun.config.loading import load_config
from lazyrun.config.resolve import RunConfig, resolve_config
from lazyrun.config.task import task_of
from lazyrun.data.categories import check_same_classes
from lazyrun.engine.checkpoint import newest_intact
from lazyrun.engine.evaluate import evaluate
from lazyrun.engine.optim import build_optimizer
from lazyrun.engine.run_folder import choose_output_dir, log_surroundings, set_up_logging, write_config
from lazyrun.engine.train import first_name, train
from lazyrun.modeling.build import build_model
from lazyrun.modeling.freeze import freeze
from lazyrun.modeling.weights import load_weights
from pretrain.common.errors import UserError
from pretrain.common.processes import note_processes, this_process
from pretrain.common.run_lock import run_lock

__all__ = ["run"]

logger = logging.getLogger(__name__)


def run(args: Namespace, cfg: DictConfig | None = None) -> None:
    """Trains, evaluates or rehearses in this process.

    Args:
        args: those of :func:`detectron2.engine.default_argument_parser`: `config_file`, `opts`, `resume`, `eval_only`,
            and `dry_run`, which checks and builds everything and trains nothing.
        cfg: what :func:`load_config` made of file and overrides, where this process has it already.

    Raises:
        UserError: the config, data or checkpoint cannot be used.
    """
    cfg = load_config(args.config_file, args.opts) if cfg is None else cfg
    dry_run = getattr(args, "dry_run", False)
    with temporary_cache(cfg) if dry_run else nullcontext():
        _run(args, cfg, dry_run)


def _run(args: Namespace, cfg: DictConfig, dry_run: bool) -> None:
    output_dir = choose_output_dir(cfg, resume=args.resume or dry_run, eval_only=args.eval_only)
    note_processes(comm.all_gather(this_process()))
    with ExitStack() as stack:
        if not dry_run:
            _on_main_process(lambda: stack.enter_context(run_lock(output_dir)))
        _run_in(output_dir, args, cfg, dry_run)


def _run_in(output_dir: Path, args: Namespace, cfg: DictConfig, dry_run: bool) -> None:
    set_up_logging(None if dry_run else output_dir, task_of(cfg).package)
    log_surroundings(args)
    with suspecting(args.opts):
        resolved = resolve_config(
            cfg,
            training=not args.eval_only,
            output_dir=output_dir,
            world_size=comm.get_world_size(),
            run_check=_on_main_process,
        )
    cfg = resolved.cfg
    if args.resume and not args.eval_only:
        _on_main_process(lambda: _check_classes_of_run(cfg))
    seed_all_rng(None if cfg.train.seed < 0 else (cfg.train.seed + comm.get_rank()) % 2**32)  # NumPy's range
    # Test images may have any size: for each cuDNN would look for the fastest algorithm anew.
    torch.backends.cudnn.benchmark = not args.eval_only and cfg.train.get("cudnn_benchmark", False)
    model = build_model(cfg).to(cfg.train.device)
    logger.info(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")
    if args.eval_only:
        _evaluate(cfg, model, dry_run)
    elif dry_run:
        with suspecting(args.opts):
            _rehearse(resolved, model)
    else:
        train(resolved, model, resume=args.resume, changes=args.opts)


def _evaluate(cfg: DictConfig, model: nn.Module, dry_run: bool) -> None:
    if not cfg.train.init_checkpoint:
        logger.warning("train.init_checkpoint is empty: evaluating randomly initialised weights.")
    check_same_classes(
        cfg.train.init_checkpoint,
        first_name(cfg.dataloader.test),
        "evaluate it on data of the classes it was trained on, or name another checkpoint.",
    )
    load_weights(model, cfg.train.init_checkpoint, strict=True)
    if dry_run:
        logger.info("Dry run: data, model and weights are ready for the evaluation.")
        return
    write_config(cfg)
    evaluate(cfg, model)


def _rehearse(resolved: RunConfig, model: nn.Module) -> None:
    """What a training does before its first step; nothing is written."""
    freeze(model, resolved.cfg.train.freeze)
    build_optimizer(resolved.cfg.optimizer, model, resolved.cfg.train.layer_decay)
    load_weights(model, resolved.cfg.train.init_checkpoint, strict=False)
    logger.info("Dry run: data, model, optimizer and initial weights are ready for the training above.")


def _check_classes_of_run(cfg: DictConfig) -> None:
    """Raises UserError if the output folder holds a run that was trained on other classes."""
    if last := newest_intact(cfg.train.output_dir):
        check_same_classes(
            str(last),
            first_name(cfg.dataloader.train),
            "--resume with those, or begin another run with train.init_checkpoint=… and another train.output_dir=…",
        )


def _on_main_process(check: Callable[[], object]) -> None:
    """Runs a check once; every process learns of the failure and stops."""
    failure: BaseException | None = None
    if comm.is_main_process():
        try:
            check()
        except (UserError, OSError) as e:
            failure = e
    if any(comm.all_gather(failure is not None)):
        raise failure or SystemExit(1)
