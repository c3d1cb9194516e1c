"""How many objects a detector gives in an image: one number for the model, its proposals and the evaluation."""

import inspect
from collections.abc import Iterator
from typing import Any

from detectron2.evaluation import COCOEvaluator, LVISEvaluator
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from pretrain.common.errors import UserError

__all__ = ["max_detections", "set_max_detections"]

USUAL = 100
"""What detectron2's models give where their config does not say, and what COCO's metrics count."""

DENSE = "max_detections_per_image"
"""The number in models that detect without proposals, such as RetinaNet."""

HEADS = "test_topk_per_image"
"""The number in ROI heads."""


def max_detections(cfg: DictConfig) -> int:
    """The most objects that a config's model gives in an image."""
    chosen = cfg.get("data", {}).get("max_detections")
    numbers = [node.get(key, USUAL) for node, key in _places(cfg.model)]
    return chosen if chosen is not None else min(numbers, default=USUAL)


def set_max_detections(cfg: DictConfig) -> None:
    """Brings `data.max_detections`, if it is set, to the model and the evaluator.

    Proposals become as many, where there are fewer in evaluation; training is not changed.

    Raises:
        UserError: it is no whole number above 0.
    """
    count = cfg.data.get("max_detections")
    if count is None:
        return
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError(f"data.max_detections={count} must be a whole number, at least 1.")
    for node, key in _places(cfg.model):
        node[key] = count
    proposals = cfg.model.get("proposal_generator")
    for node, key in ((proposals, "pre_nms_topk"), (proposals, "post_nms_topk")):
        if isinstance(node, DictConfig) and OmegaConf.is_list(node.get(key)) and len(node[key]) == 2:
            node[key] = [node[key][0], max(node[key][1], count)]
    candidates = cfg.model.get("test_topk_candidates")
    if candidates is not None:
        cfg.model.test_topk_candidates = max(candidates, count)
    evaluator = cfg.dataloader.get("evaluator")
    if isinstance(evaluator, DictConfig) and _is_kind(evaluator, (COCOEvaluator, LVISEvaluator)):
        evaluator.max_dets_per_image = count


def _places(model: DictConfig) -> Iterator[tuple[DictConfig, str]]:
    """The parts of a model that limit its detections, and the name of the limit."""
    heads = model.get("roi_heads")
    if isinstance(heads, DictConfig):
        predictors = heads.get("box_predictors") or [heads.get("box_predictor")]  # a cascade has several
        yield from ((node, HEADS) for node in predictors if isinstance(node, DictConfig))
    elif DENSE in model or DENSE in _parameters(model):
        yield model, DENSE


def _parameters(node: DictConfig) -> Any:
    try:
        return inspect.signature(_target(node)).parameters
    except (TypeError, ValueError):
        return ()


def _is_kind(node: DictConfig, kinds: tuple[type, ...]) -> bool:
    target = _target(node)
    return isinstance(target, type) and issubclass(target, kinds)


def _target(node: DictConfig) -> Any:
    """The class or function that a node calls, None for none."""
    target = node.get("_target_")
    try:
        return locate(target) if isinstance(target, str) else target
    except ImportError:  # building the model will say so
        return None
