"""Sums of losses over the steps of an epoch, in the plain types that a checkpoint keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from pretrain.training.step import Step

__all__ = ["add_step", "mean_losses_of", "no_totals"]


def no_totals(loss_names: Sequence[str]) -> dict[str, Any]:
    """The sums before the first step; `loss_names` are those that the loss is made of, if any."""
    return {"loss": 0.0, "steps": 0, "skipped": 0} | ({"parts": [0.0] * len(loss_names)} if loss_names else {})


def add_step(totals: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """The sums with one more step."""
    if step.loss is None:
        return {**totals, "skipped": totals["skipped"] + 1}
    parts = [total + value for total, value in zip(totals.get("parts", ()), step.parts, strict=True)]
    sums = {**totals, "loss": totals["loss"] + step.loss, "steps": totals["steps"] + 1}
    return sums | ({"parts": parts} if parts else {})


def mean_losses_of(totals: Mapping[str, Any], loss_names: Sequence[str]) -> dict[str, float]:
    """`train_loss`, and `train_loss_NAME` of each loss it is made of, over the steps that were taken."""
    sums = dict(zip(["train_loss", *(f"train_loss_{name}" for name in loss_names)], _sums(totals), strict=True))
    return {name: total / max(totals["steps"], 1) for name, total in sums.items()}


def _sums(totals: Mapping[str, Any]) -> list[float]:
    return [totals["loss"], *totals.get("parts", ())]
