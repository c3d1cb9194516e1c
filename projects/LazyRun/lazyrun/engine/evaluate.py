"""Evaluation of a model on a config's test set."""

import logging
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from lazyrun.data.evaluation_loader import build_test_loader
from lazyrun.modeling.tta import with_tta

__all__ = ["evaluate", "evaluate_in_training"]

logger = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Evaluates on `dataloader.test` with `dataloader.evaluator`; prints and returns the metrics.

    On all processes but the first, and without an evaluator, the result is empty.
    """
    if "evaluator" not in cfg.dataloader:
        logger.info("The config has no dataloader.evaluator: nothing to evaluate.")
        return {}
    with torch.compiler.set_stance("force_eager"):  # test images may have any size; each would be compiled anew
        evaluator = instantiate(cfg.dataloader.evaluator)
        results = inference_on_dataset(with_tta(cfg, model), build_test_loader(cfg, evaluator), evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results


def evaluate_in_training(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """As :func:`evaluate`, with a warning if `train.best_metric` is not among the metrics."""
    results = evaluate(cfg, model)
    metrics = flatten_results_dict(results)
    if metrics and cfg.train.best_metric not in metrics:
        logger.warning(
            f"train.best_metric={cfg.train.best_metric} is not among the metrics, so there is no model_best.pth; "
            f"there are {', '.join(list(metrics)[:10])}{', …' if len(metrics) > 10 else ''}."
        )
    return results
