"""Evaluation of a model on a config's test set."""

import logging
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import distributed, nn

from lazyrun.config.changes import making
from lazyrun.data.evaluation_loader import build_test_loader
from lazyrun.modeling.slicing import with_slices
from lazyrun.modeling.tta import with_tta
from pretrain.common.sharding import is_sharded, whole_weights

__all__ = ["evaluate", "evaluate_in_training"]

logger = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, model: nn.Module, *, folder: str | None = None) -> dict[str, Any]:
    """Evaluates on `dataloader.test` with `dataloader.evaluator`; prints and returns the metrics.

    On all processes but the first, and without an evaluator, the result is empty.

    Args:
        folder: where the evaluator writes, in place of its own `output_dir`.
    """
    if "evaluator" not in cfg.dataloader:
        logger.info("The config has no dataloader.evaluator: nothing to evaluate.")
        return {}
    options = dict(cfg.dataloader.evaluator) | ({"output_dir": folder} if folder else {})
    with torch.compiler.set_stance("force_eager"):  # test images may have any size; each would be compiled anew
        with making("dataloader.evaluator"):
            evaluator = instantiate(options)
        with making("dataloader.test"):
            loader = build_test_loader(cfg, evaluator)
        results = inference_on_dataset(with_slices(cfg, with_tta(cfg, model)), loader, evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results


def _share_buffers(model: nn.Module) -> None:
    """Gives all processes the running statistics of the first, which checkpoints hold and resumed runs have."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, src=0)


def evaluate_in_training(cfg: DictConfig, model: nn.Module, average: nn.Module | None = None) -> dict[str, Any]:
    """As :func:`evaluate`, also of averaged weights, with a warning if `train.best_metric` is not among the metrics.

    The metrics of the average are the same with `ema/` before their names, and its evaluator writes to a folder beside
    the other's, such as `inference_ema`.

    A model that shares out its weights has all of them in every process meanwhile: processes may have other numbers of
    images to look at. All of them get the metrics then, as they save the best weights together.
    """
    _share_buffers(model)
    with whole_weights(model):
        results = evaluate(cfg, model)
    if average is not None and "evaluator" in cfg.dataloader:
        logger.info("The same of the averaged weights (train.ema):")
        _share_buffers(average)
        averaged = evaluate(cfg, average, folder=f"{cfg.dataloader.evaluator.output_dir}_ema")
        results = {**results, **{f"ema/{task}": values for task, values in averaged.items()}}
    metrics = flatten_results_dict(results)
    if metrics and cfg.train.best_metric not in metrics:
        logger.warning(
            f"train.best_metric={cfg.train.best_metric} is not among the metrics, so there is no model_best.pth; "
            f"there are {', '.join(list(metrics)[:10])}{', …' if len(metrics) > 10 else ''}."
        )
    return comm.all_gather(results)[0] if is_sharded(model) else results
