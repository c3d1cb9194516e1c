"""One detection run, from a resolved config: checks, training, evaluation."""

import logging
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from lazyrun.config.loading import load_config
from lazyrun.config.recipe import derive_recipe
from lazyrun.config.task import task_of
from lazyrun.data.categories import categories_of, check_same_classes
from lazyrun.data.padding import check_padding
from lazyrun.engine.checkpoint import RunCheckpointer
from lazyrun.engine.hooks import BestCheckpointer, RecordMemory, SavedEvalHook, SaveOnSigterm, SeedEachStep
from lazyrun.engine.optim import build_optimizer
from lazyrun.engine.trainer import Trainer
from lazyrun.engine.writers import build_writers, check_writers
from lazyrun.modeling.build import build_model
from lazyrun.modeling.tta import with_tta
from lazyrun.modeling.weights import load_weights, weight_loader_packages
from pretrain.common.errors import UserError
from pretrain.common.files import replacing

__all__ = ["compile_backbone", "evaluate", "run", "train"]

logger = logging.getLogger(__name__)


def run(args: Namespace) -> None:
    """Trains or evaluates in this process.

    Args:
        args: those of :func:`detectron2.engine.default_argument_parser`: `config_file`, `opts`, `resume`, `eval_only`.

    Raises:
        UserError: the config, data or checkpoint cannot be used.
    """
    cfg = load_config(args.config_file, args.opts)
    output_dir = Path(cfg.train.output_dir)
    if args.eval_only:
        cfg.train.output_dir = str(output_dir / "eval")  # the training run's config and log stay as they are
    elif (output_dir / "last_checkpoint").exists() and not args.resume:
        raise UserError(
            f"{output_dir} already holds a run; add --resume to continue it, or name another folder with "
            "train.output_dir=…"
        )
    # detectron2 takes names of these suffixes for those of log files, and would write into them.
    if (output_dir.exists() and not output_dir.is_dir()) or output_dir.suffix in (".txt", ".log"):
        raise UserError(f"train.output_dir={output_dir} is the name of a file; name a folder.")
    task = task_of(cfg)
    for name in dict.fromkeys(("fvcore", "detectron2", "lazyrun", "pretrain", *weight_loader_packages(), task.package)):
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name=name)
    task.use_custom_data(cfg, training=not args.eval_only)
    if args.eval_only and "evaluator" not in cfg.dataloader:
        raise UserError(
            "The config has no dataloader.evaluator: --eval-only has nothing to evaluate (data.val_images?)."
        )
    check_padding(cfg)
    if args.resume and not args.eval_only:
        _on_main_process(lambda: _check_classes_of_run(cfg))
    if "evaluator" in cfg.dataloader and "output_dir" not in cfg.dataloader.evaluator:
        cfg.dataloader.evaluator.output_dir = "${train.output_dir}/inference"
    _check_precision(cfg)
    check_writers(cfg.train.writers)
    _set_up(cfg, args)
    if cfg.train.check_data:
        _on_main_process(lambda: task.check_datasets(cfg, training=not args.eval_only))

    model = build_model(cfg).to(cfg.train.device)
    logger.info(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")
    if args.eval_only:
        if not cfg.train.init_checkpoint:
            logger.warning("train.init_checkpoint is empty: evaluating randomly initialised weights.")
        check_same_classes(
            cfg.train.init_checkpoint,
            _first_name(cfg.dataloader.test),
            "evaluate it on data of the classes it was trained on, or name another checkpoint.",
        )
        load_weights(model, cfg.train.init_checkpoint, strict=True)
        _write_config(cfg)
        evaluate(cfg, model)
    else:
        train(cfg, model, resume=args.resume)


def _set_up(cfg: DictConfig, args: Namespace) -> None:
    """What detectron2's `default_setup` does, but for `config.yaml`, which must survive a run that is refused later."""
    rank = comm.get_rank()
    logger.info(f"Rank of current process: {rank}. World size: {comm.get_world_size()}")
    logger.info(f"Environment info:\n{collect_env_info()}")
    logger.info(f"Command line arguments: {args}")
    logger.info(f"Contents of {args.config_file}:\n{Path(args.config_file).read_text()}")
    seed_all_rng(None if cfg.train.seed < 0 else cfg.train.seed + rank)
    # Test images may have any size: for each cuDNN would look for the fastest algorithm anew.
    torch.backends.cudnn.benchmark = not args.eval_only and cfg.train.get("cudnn_benchmark", False)


def _write_config(cfg: DictConfig) -> None:
    """Writes `config.yaml`, in place of an earlier run's, once nothing is left that this run could be refused for."""
    if not comm.is_main_process():
        return
    output_dir = Path(cfg.train.output_dir)
    with TemporaryDirectory(prefix=".config-", dir=output_dir) as folder:
        LazyConfig.save(cfg, f"{folder}/config.yaml")  # and config.yaml.pkl, of what YAML cannot hold
        for file in Path(folder).iterdir():
            with replacing(output_dir / file.name) as temporary:
                file.replace(temporary)


def evaluate(cfg: DictConfig, model: nn.Module) -> dict:
    """Evaluates on `dataloader.test` with `dataloader.evaluator`; prints and returns the metrics.

    On all processes but the first, and without an evaluator, the result is empty.
    """
    if "evaluator" not in cfg.dataloader:
        logger.info("The config has no dataloader.evaluator: nothing to evaluate.")
        return {}
    with torch.compiler.set_stance("force_eager"):  # test images may have any size; each would be compiled anew
        results = inference_on_dataset(
            with_tta(cfg, model), instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
        )
    if comm.is_main_process():
        print_csv_format(results)
    return results


def _evaluate_in_training(cfg: DictConfig, model: nn.Module) -> dict:
    results = evaluate(cfg, model)
    metrics = flatten_results_dict(results)
    if metrics and cfg.train.best_metric not in metrics:
        logger.warning(
            f"train.best_metric={cfg.train.best_metric} is not among what was measured, so there is no model_best.pth; "
            f"there are {', '.join(list(metrics)[:10])}{', …' if len(metrics) > 10 else ''}."
        )
    return results


def train(cfg: DictConfig, model: nn.Module, *, resume: bool = False) -> None:
    """Trains for `train.max_iter` optimizer steps, with checkpoints, evaluations and logs in `train.output_dir`.

    Args:
        cfg: config of the run; what follows from other numbers is filled in.
        model: on its device, not wrapped.
        resume: go on from the last checkpoint in the output folder, if there is one.

    Raises:
        UserError: nothing is left to train, or the config's numbers do not fit together.
    """
    loader = _build_loader(cfg)
    optimizer = build_optimizer(cfg.optimizer, model)
    compile_backbone(model, cfg.train.compile)
    amp_dtype = _amp_dtype(cfg)
    ddp = dict(cfg.train.ddp)
    # Without loss scaling, gradients sent as float16 would underflow.
    ddp["fp16_compression"] = ddp["fp16_compression"] and amp_dtype is torch.float16
    if cfg.train.device == "cpu":
        ddp["device_ids"] = None
    model = create_ddp_model(model, **ddp)
    trainer = Trainer(model, loader, optimizer, amp_dtype, cfg.train.grad_accum_steps)

    checkpointer = RunCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    checkpointer.categories = categories_of(_first_name(cfg.dataloader.train))
    periodic = hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
    sigterm = SaveOnSigterm(checkpointer)
    main = comm.is_main_process()
    writers = build_writers(cfg) if main else []
    trainer.register_hooks(
        [
            SeedEachStep(cfg.train.seed),
            hooks.IterationTimer(),
            RecordMemory(cfg.train.log_period),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            sigterm,
            SavedEvalHook(cfg.train.eval_period, lambda: _evaluate_in_training(cfg, model), sigterm, periodic.period),
            BestCheckpointer(checkpointer, cfg.train.best_metric) if main else None,
            periodic if main else None,
            hooks.PeriodicWriter(writers, period=cfg.train.log_period) if main else None,
        ]
    )

    start_iter = 0
    if resume and checkpointer.has_checkpoint():
        _resume(checkpointer, optimizer)
        start_iter = trainer.iter + 1
        periodic.recent_checkpoints = sorted(str(p) for p in Path(cfg.train.output_dir).glob("model_[0-9]*.pth"))
    else:
        load_weights(model, cfg.train.init_checkpoint, strict=False)
    if start_iter >= cfg.train.max_iter:
        raise UserError(
            f"Nothing is left to train: {cfg.train.output_dir} holds iteration {start_iter} of train.max_iter="
            f"{cfg.train.max_iter}. Raise train.max_iter, or evaluate with --eval-only "
            f"train.init_checkpoint={checkpointer.get_checkpoint_file()}"
        )
    if start_iter:
        _skip_batches(loader, start_iter * cfg.train.grad_accum_steps)
    _write_config(cfg)
    trainer.train(start_iter, cfg.train.max_iter)


def _build_loader(cfg: DictConfig) -> Iterable:
    """The loader of micro-batches; on the way the config's derived numbers are filled in and logged."""
    dataset = instantiate(cfg.dataloader.train.dataset)
    recipe = derive_recipe(cfg, len(dataset), comm.get_world_size())
    logger.info(str(recipe))
    micro_batches = {"dataset": dataset, "total_batch_size": recipe.total_batch_size // recipe.grad_accum_steps}
    return instantiate(dict(cfg.dataloader.train) | micro_batches)


def compile_backbone(model: nn.Module, choice: bool | str) -> None:
    """Compiles `model.backbone` in place, so that parameters and checkpoints keep their names.

    The heads stay as they are: their shapes change with every image's proposals. The backbone is compiled for one shape
    at a time, as most configs pad training images to one size; from the ninth shape on it runs uncompiled, which a
    warning says where the model does not pad to one size itself.

    Args:
        choice: a backend of `torch.compile`, True for inductor, False to compile nothing.

    Raises:
        UserError: there is no such backend.
    """
    if not choice:
        return
    backend = "inductor" if choice is True else choice
    backends = torch.compiler.list_backends()
    if backend not in (*backends, "eager", "aot_eager"):  # these two are for finding faults, and not listed
        raise UserError(f"train.compile={choice} is neither true, false, eager, aot_eager nor {', '.join(backends)}.")
    if not getattr(model.backbone, "padding_constraints", {}).get("square_size"):
        logger.warning(
            "train.compile: this model does not pad images to one size; the backbone is compiled for the first eight "
            "sizes that it meets, each of which takes a while, and runs uncompiled for all others."
        )
    model.backbone.compile(backend=backend, dynamic=False)


def _check_classes_of_run(cfg: DictConfig) -> None:
    """Raises UserError if the output folder holds a run that was trained on other classes."""
    tag = Path(cfg.train.output_dir) / "last_checkpoint"
    if tag.is_file():
        check_same_classes(
            str(tag.with_name(tag.read_text().strip())),
            _first_name(cfg.dataloader.train),
            "--resume with those, or begin another run with train.init_checkpoint=… and another train.output_dir=…",
        )


def _first_name(loader: DictConfig) -> str:
    names = loader.dataset.names
    return names if isinstance(names, str) else names[0]


def _resume(checkpointer: RunCheckpointer, optimizer: torch.optim.Optimizer) -> None:
    """Loads the last checkpoint; learning rate and weight decay stay those of the config, which may have changed."""
    chosen = [{"initial_lr": group["lr"], "weight_decay": group["weight_decay"]} for group in optimizer.param_groups]
    checkpointer.load(checkpointer.get_checkpoint_file())
    for group, values in zip(optimizer.param_groups, chosen, strict=True):
        group.update(values)


def _skip_batches(loader, batches: int) -> None:
    sampler = getattr(loader, "batch_sampler", None)
    if hasattr(sampler, "start"):
        sampler.start = batches
    else:
        logger.warning("This config's loader cannot be resumed in place: it starts with a new shuffle.")


def _check_precision(cfg: DictConfig) -> None:
    if cfg.train.amp.dtype not in ("float16", "bfloat16"):
        raise UserError(f"train.amp.dtype={cfg.train.amp.dtype} is neither float16 nor bfloat16.")


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


def _on_main_process(check) -> None:
    """Runs a check once; every process learns of the failure and stops."""
    failure = None
    if comm.is_main_process():
        try:
            check()
        except UserError as e:
            failure = e
    if any(comm.all_gather(failure is not None)):
        raise failure or SystemExit(1)
