"""Non-maximum suppression and pooling of boxes with shapes that do not depend on values, as an exported graph needs.

Both give what detectron2's operators give. These pick boxes by their values, and so make tensors whose sizes only the
data decide; here boxes stay where they are, and a mask says which of them count.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from torch import nn
from torchvision.ops import nms

from pretrain.common.errors import UserError

__all__ = ["NOWHERE", "check_pooler", "nms_keep", "onnx_translations", "pool_boxes"]

NOWHERE = -1e4
"""Coordinate of boxes that stand for none: they are empty, lie outside of every map, and pool to zeros."""


@torch.library.custom_op("lazyrun::nms_keep", mutates_args=())
def nms_keep(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, score_threshold: float) -> torch.Tensor:
    """Which boxes a greedy non-maximum suppression keeps, within each of several groups.

    Args:
        boxes: `(G, N, 4)` as x0, y0, x1, y1.
        scores: `(G, N)`.
        iou_threshold: boxes that overlap a kept one by more are dropped.
        score_threshold: only boxes of a larger score take part.

    Returns:
        bool `(G, N)`.
    """
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for group in range(len(boxes)):
        above = (scores[group] > score_threshold).nonzero().flatten()
        keep[group, above[nms(boxes[group, above], scores[group, above], iou_threshold)]] = True
    return keep


@nms_keep.register_fake
def _(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, score_threshold: float) -> torch.Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def onnx_translations() -> dict:
    """How :func:`torch.onnx.export` writes the operators above; needs onnxscript."""
    from onnx import TensorProto, helper
    from onnxscript import opset18

    op: Any = opset18  # whose types are narrower than what the operators take
    zero, one = (helper.make_tensor("value", TensorProto.INT64, [1], [value]) for value in (0, 1))

    def write_nms_keep(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
        most = op.Constant(value_ints=[torch.iinfo(torch.int64).max])
        selected = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            most,
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )  # (M, 3): group, class 0, box
        places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
        count = op.Shape(selected, start=0, end=1)
        kept = op.ScatterND(
            op.ConstantOfShape(op.Shape(scores), value=zero), places, op.ConstantOfShape(count, value=one)
        )
        return op.Cast(kept, to=TensorProto.BOOL)

    def write_stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # TopK is stable by its definition: of equal values the one of lower index comes first.
        length = op.Shape(x, start=dim, end=dim + 1 or None)
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    return {torch.ops.lazyrun.nms_keep.default: write_nms_keep, torch.ops.aten.sort.stable: write_stable_sort}


def check_pooler(pooler: ROIPooler) -> None:
    """Raises UserError for a pooler of another kind than :class:`detectron2.layers.ROIAlign`."""
    other = [type(level).__name__ for level in pooler.level_poolers if not isinstance(level, ROIAlign)]
    if other:
        raise UserError(f"Poolers of the kind {other[0]} cannot be exported; ROIAlign and ROIAlignV2 can.")


def pool_boxes(pooler: ROIPooler, features: Sequence[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
    """What a pooler gives for the same number of boxes in each image.

    Every level pools all boxes, but those of other levels are made empty first. They cost next to nothing and pool to
    zeros, so that the levels' sum holds each box from its own level.

    Args:
        pooler: detectron2's.
        features: maps `(B, C, H, W)`, one for each level.
        boxes: `(B, N, 4)`; those at :data:`NOWHERE` give zeros.

    Returns:
        `(B * N, C, h, w)`.
    """
    B, N, _ = boxes.shape
    flat = boxes.reshape(B * N, 4)
    image = torch.arange(B, device=boxes.device, dtype=boxes.dtype)[:, None].expand(B, N).reshape(B * N, 1)
    levels = _levels(pooler, flat)
    nowhere = flat.new_full((), NOWHERE)
    pooled = None
    layers: Sequence[nn.Module] = list(pooler.level_poolers)
    for level, (layer, maps) in enumerate(zip(layers, features, strict=True)):
        rois = torch.where((levels == level)[:, None], flat, nowhere) if len(layers) > 1 else flat
        part = layer(maps, torch.cat([image, rois], dim=1))
        pooled = part if pooled is None else pooled + part
    assert pooled is not None
    return pooled


def _levels(pooler: ROIPooler, boxes: torch.Tensor) -> torch.Tensor:
    """The level of each box as an index of the pooler's levels (FPN, arXiv:1612.03144, equation 1)."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(pooler.canonical_level + torch.log2(area.sqrt() / pooler.canonical_box_size + 1e-8))
    return level.clamp(pooler.min_level, pooler.max_level).to(torch.int64) - pooler.min_level
