"""Training of a resolved config: every part from the config, then detectron2's loop with our hooks."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from lazyrun.config.changes import suspecting
from lazyrun.config.resolve import RunConfig
from lazyrun.data.categories import categories_of
from lazyrun.data.loader import corrupt_option
from lazyrun.engine.checkpoint import RunCheckpointer, earlier_checkpoints
from lazyrun.engine.compile import compile_backbone
from lazyrun.engine.ema import WeightAverage
from lazyrun.engine.evaluate import evaluate_in_training
from lazyrun.engine.hooks import (
    BestCheckpointer,
    FinishRun,
    FrozenParts,
    RecordMemory,
    SavedEvalHook,
    SaveOnSigterm,
    SeedEachStep,
)
from lazyrun.engine.metric_writers import build_writers
from lazyrun.engine.optim import build_optimizer
from lazyrun.engine.run_folder import write_config
from lazyrun.engine.sharding import check_same_checkpoint, shard_model, shards_weights
from lazyrun.engine.trainer import Trainer
from lazyrun.modeling.freeze import freeze
from lazyrun.modeling.weights import load_weights
from pretrain.common.errors import UserError
from pretrain.common.gradient_strides import match_gradient_strides

__all__ = ["train"]

logger = logging.getLogger(__name__)


def train(run: RunConfig, model: nn.Module, *, resume: bool = False, changes: Sequence[str] = ()) -> None:
    """Trains for `train.max_iter` optimizer steps, with checkpoints, evaluations and logs in `train.output_dir`.

    Args:
        run: resolved for a training.
        model: on its device, not wrapped.
        resume: go on from the last checkpoint in the output folder, if there is one.
        changes: the `key=value` overrides of the config, which may be at fault up to the end of the first step.

    Raises:
        UserError: nothing is left to train, or the config's numbers do not fit together.
    """
    cfg = run.cfg
    sharded = shards_weights(cfg)
    with suspecting(changes):
        trainer, checkpointer, periodic = _set_up(run, model, sharded)
    trainer.first_step = partial(suspecting, changes)
    last = checkpointer.get_checkpoint_file() if resume else ""
    if not last:
        load_weights(trainer.model, cfg.train.init_checkpoint, strict=False)
    if sharded:
        check_same_checkpoint(last)
        with suspecting(changes):
            shard_model(model, trainer.optimizer)
    start_iter = 0
    if last:
        _resume(checkpointer, last, trainer.optimizer)
        start_iter = trainer.iter + 1
        periodic.recent_checkpoints = earlier_checkpoints(cfg.train.output_dir, start_iter)
    if start_iter >= cfg.train.max_iter and _is_finished(cfg, start_iter, checkpointer):
        return
    if start_iter:
        _skip_batches(trainer.data_loader, start_iter * cfg.train.grad_accum_steps)
    write_config(cfg)
    trainer.train(start_iter, cfg.train.max_iter)


def _set_up(
    run: RunConfig, model: nn.Module, sharded: bool
) -> tuple[Trainer, RunCheckpointer, hooks.PeriodicCheckpointer]:
    """The trainer with its hooks, and what writes its checkpoints.

    Args:
        sharded: the model will be shared out, after its initial weights are loaded.
    """
    cfg = run.cfg
    loader = _build_loader(run)
    frozen = freeze(model, cfg.train.freeze)
    optimizer = build_optimizer(cfg.optimizer, model, cfg.train.layer_decay)
    compile_backbone(model, cfg.train.compile)
    amp_dtype = _amp_dtype(cfg)
    bare_model = model
    if not sharded:
        match_gradient_strides(model)
        model = create_ddp_model(model, **_ddp_options(cfg, amp_dtype))
    trainer = Trainer(model, loader, optimizer, amp_dtype, cfg.train.grad_accum_steps, cfg.train.clip_grad)
    checkpointer = RunCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    checkpointer.categories = categories_of(first_name(cfg.dataloader.train))
    periodic = hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
    if not comm.is_main_process():
        periodic.max_to_keep = None  # the first process removes old files
    decay = cfg.train.ema.decay
    average = None if decay is None else WeightAverage(bare_model, decay, checkpointer)
    trainer.register_hooks([FrozenParts(frozen), average, *_hooks(cfg, model, checkpointer, periodic, average)])
    return trainer, checkpointer, periodic


def _is_finished(cfg: DictConfig, start_iter: int, checkpointer: RunCheckpointer) -> bool:
    """Whether a run without an iteration left has also written and evaluated everything; says what it finds.

    Raises:
        UserError: the run is longer than the config asks for.
    """
    found = f"{cfg.train.output_dir} holds iteration {start_iter} of train.max_iter={cfg.train.max_iter}"
    way_out = (
        f"Raise train.max_iter, or evaluate with --eval-only train.init_checkpoint={checkpointer.get_checkpoint_file()}"
    )
    if start_iter > cfg.train.max_iter:
        raise UserError(f"Nothing is left to train: {found}. {way_out}")
    if FinishRun.is_finished(cfg.train.output_dir, cfg.train.max_iter):
        logger.info(f"Nothing is left to do: {found}. {way_out}")
        return True
    logger.info(f"All {start_iter} iterations are done; what was still due after them follows.")
    return False


def _hooks(
    cfg: DictConfig,
    model: nn.Module,
    checkpointer: RunCheckpointer,
    periodic: hooks.PeriodicCheckpointer,
    average: WeightAverage | None,
) -> list[hooks.HookBase | None]:
    """Hooks in the order in which they run after a step, in which each relies on those before it.

    1. `sigterm`: if a signal came, a checkpoint, and the run ends.
    2. `evaluation`, if one is due: a checkpoint that says so, then the evaluation, which a signal ends at once. A run
       that is resumed from this checkpoint evaluates first.
    3. `BestCheckpointer`: `model_best.pth`, if that evaluation was the best.
    4. `periodic`, if one is due: a checkpoint, which knows of the evaluation and of the best one.
    5. `FinishRun`, after the last step: the note that nothing is due any more.
    """
    main = comm.is_main_process()
    sigterm = SaveOnSigterm(checkpointer)
    evaluation = SavedEvalHook(
        cfg.train.eval_period,
        lambda: evaluate_in_training(cfg, model, average.model if average else None),
        sigterm,
        periodic.period,
    )
    return [
        SeedEachStep(cfg.train.seed),
        hooks.IterationTimer(),
        RecordMemory(cfg.train.log_period),
        hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
        sigterm,
        evaluation,
        BestCheckpointer(checkpointer, cfg.train.best_metric, average),
        periodic,
        hooks.PeriodicWriter(build_writers(cfg), period=cfg.train.log_period) if main else None,
        FinishRun(checkpointer, average),
    ]


def _build_loader(run: RunConfig) -> Iterable[Any]:
    """The loader of micro-batches over the images that the recipe was derived from."""
    assert run.recipe is not None, "the config was resolved for an evaluation"
    micro_batches = {
        "dataset": run.train_dataset,
        "total_batch_size": run.recipe.total_batch_size // run.recipe.grad_accum_steps,
        **corrupt_option(run.cfg),
    }
    return instantiate(dict(run.cfg.dataloader.train) | micro_batches)


def _ddp_options(cfg: DictConfig, amp_dtype: torch.dtype | None) -> dict[str, Any]:
    options = dict(cfg.train.ddp)
    # Without loss scaling, gradients sent as float16 would underflow.
    options["fp16_compression"] = options["fp16_compression"] and amp_dtype is torch.float16
    if cfg.train.device == "cpu":
        options["device_ids"] = None
    return options


def first_name(loader: DictConfig) -> str:
    """The first data set of a loader's config, whose classes are the run's."""
    names = loader.dataset.names
    return names if isinstance(names, str) else names[0]


def _resume(checkpointer: RunCheckpointer, last: str, optimizer: torch.optim.Optimizer) -> None:
    """Loads the last checkpoint; learning rate and weight decay stay those of the config, which may have changed."""
    chosen = [{"initial_lr": group["lr"], "weight_decay": group["weight_decay"]} for group in optimizer.param_groups]
    checkpointer.load(last)
    for group, values in zip(optimizer.param_groups, chosen, strict=True):
        group.update(values)


def _skip_batches(loader: Any, batches: int) -> None:
    sampler: Any = getattr(loader, "batch_sampler", None)
    if hasattr(sampler, "start"):
        sampler.start = batches
    else:
        logger.warning("This config's loader cannot be resumed in place: it starts with a new shuffle.")


def _amp_dtype(cfg: DictConfig) -> torch.dtype | None:
    """The precision of autocast that the device can train in, None for float32; a fallback is logged."""
    if not cfg.train.amp.enabled:
        return None
    if cfg.train.device == "cpu" and cfg.train.amp.dtype == "float16":
        logger.warning(
            "Mixed precision: float16 needs a GPU, this run is in float32 (train.amp.dtype=bfloat16 runs on a CPU)."
        )
        return None
    return getattr(torch, cfg.train.amp.dtype)
