"""The training pass of an R-CNN on fake tensors.

Which anchors and proposals take part depends on values, which fake tensors lack. How many do is configured:
`batch_size_per_image` of them in each image, of which at most `positive_fraction` are objects. So everything that
chooses is replaced here by a choice of that many, and everything that computes, and keeps what it computes, is the
model's own: backbone, pyramid, region proposals' head, poolers' RoIAlign, box and mask heads, losses.
"""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn

__all__ = ["rcnn_training_pass"]


def rcnn_training_pass(
    model: Any, batch_size: int, size: tuple[int, int], foreground: int | None = None
) -> Callable[[], torch.Tensor]:
    """The forward pass of a training step on made-up images; the model's choices are replaced for good.

    Args:
        model: a `GeneralizedRCNN` of fake tensors.
        size: height and width of the images in pixels.
        foreground: objects among the proposals of an image, which have masks; by default the most that may be.

    Returns:
        a function without arguments that returns the sum of the losses.
    """
    device = model.pixel_mean.device
    heads, rpn = model.roi_heads, model.proposal_generator
    if foreground is None:
        foreground = int(heads.batch_size_per_image * heads.positive_fraction)
    images = torch.empty(batch_size, len(model.pixel_mean), *size, device=device)
    preprocess = type(model).preprocess_image
    wraps = preprocess.__qualname__.split(".")[0] != "GeneralizedRCNN"

    def preprocess_image(self: Any, batched_inputs: Sequence[Any]) -> Any:
        batch = ImageList(images, [size] * batch_size)
        return ImageList(batch, batch.image_sizes) if wraps else batch  # some backbones want the sizes too

    model.preprocess_image = MethodType(preprocess_image, model)
    _fix_anchors(rpn)
    _fix_proposals(rpn, heads, foreground)
    model.train()
    batch = [{"image": image, "instances": Instances(size)} for image in images.unbind()]

    def forward() -> torch.Tensor:
        with EventStorage():
            return sum(model(batch).values())

    return forward


def _fix_anchors(rpn: Any) -> None:
    """Losses of the configured number of anchors, and no proposals, which come from :func:`_fix_proposals`."""

    def losses(
        self: Any, anchors: Any, logits: list[torch.Tensor], labels: Any, deltas: list[torch.Tensor], boxes: Any
    ) -> dict[str, torch.Tensor]:
        scores, offsets = torch.cat(logits, dim=1).flatten(), torch.cat(deltas, dim=1).flatten(0, 1)
        sampled = _choice(len(scores), self.batch_size_per_image * len(logits[0]), scores)
        positive = sampled[: int(len(sampled) * self.positive_fraction)]
        scores, offsets = scores[sampled], offsets[positive]
        return {
            "loss_rpn_cls": F.binary_cross_entropy_with_logits(scores, torch.zeros_like(scores), reduction="sum"),
            "loss_rpn_loc": _box_loss(offsets),
        }

    rpn.losses = MethodType(losses, rpn)
    rpn.label_and_sample_anchors = lambda anchors, instances: (None, None)
    rpn.predict_proposals = lambda anchors, logits, deltas, sizes: [Instances(size) for size in sizes]


def _fix_proposals(rpn: Any, heads: Any, foreground: int) -> None:
    def sample(proposals: list[Instances], targets: Any) -> list[Instances]:
        like = next(heads.parameters())
        return [_proposals(p.image_size, heads.batch_size_per_image, heads.num_classes, like) for p in proposals]

    heads.label_and_sample_proposals = sample
    for pooler in (m for m in heads.modules() if isinstance(m, ROIPooler)):
        pooler.forward = MethodType(_pool, pooler)
    predictors = heads.box_predictor if isinstance(heads.box_predictor, nn.ModuleList) else [heads.box_predictor]
    for predictor in predictors:
        predictor.losses = MethodType(_predictor_losses(foreground), predictor)
    if isinstance(heads, CascadeROIHeads):
        heads._match_and_label_boxes = lambda proposals, stage, targets: proposals
        heads._create_proposals_from_boxes = lambda boxes, sizes: [
            _proposals(size, len(b), heads.num_classes, b) for b, size in zip(boxes, sizes, strict=True)
        ]
    if heads.mask_on:
        heads._forward_mask = MethodType(_mask_losses(foreground), heads)


def _choice(length: int, count: int, like: torch.Tensor) -> torch.Tensor:
    return torch.randint(length, (min(count, length),), device=like.device)


def _proposals(size: tuple[int, int], count: int, num_classes: int, like: torch.Tensor) -> Instances:
    boxes = torch.empty(count, 4, device=like.device)
    classes = torch.randint(num_classes, (count,), device=like.device)
    return Instances(size, proposal_boxes=Boxes(boxes), gt_boxes=Boxes(boxes), gt_classes=classes)


def _pool(self: Any, features: list[torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
    """The same number of boxes from each level of the pyramid."""
    # (N, 5): the image's number and the corners
    rois = torch.cat([F.pad(b.tensor, (1, 0), value=i) for i, b in enumerate(boxes)])
    if len(features) == 1:
        return self.level_poolers[0](features[0], rois)
    out = features[0].new_zeros(len(rois), features[0].shape[1], *self.output_size)
    indices = torch.arange(len(rois), device=rois.device).tensor_split(len(features))
    for feature, pooler, rows in zip(features, self.level_poolers, indices, strict=True):
        out.index_put_((rows,), pooler(feature, rois[rows]).to(out.dtype))
    return out


def _box_loss(deltas: torch.Tensor) -> torch.Tensor:
    return F.smooth_l1_loss(deltas, torch.zeros_like(deltas), reduction="sum")


def _predictor_losses(foreground: int) -> Callable[..., dict[str, torch.Tensor]]:
    def losses(self: Any, predictions: tuple, proposals: list[Instances]) -> dict[str, torch.Tensor]:
        scores, deltas = predictions
        classes = torch.cat([p.gt_classes for p in proposals])
        count = min(foreground * len(proposals), len(deltas))
        rows = torch.arange(count, device=deltas.device)
        own = classes[:count] if deltas.shape[1] != 4 else torch.zeros_like(rows)  # a box for each class, or one
        deltas = deltas.view(len(deltas), -1, 4)[rows, own]
        return {"loss_cls": F.cross_entropy(scores, classes), "loss_box_reg": _box_loss(deltas)}

    return losses


def _mask_losses(foreground: int) -> Callable[..., dict[str, torch.Tensor]]:
    def forward_mask(self: Any, features: dict[str, torch.Tensor], instances: list[Instances]) -> dict:
        boxes = [Boxes(x.proposal_boxes.tensor[:foreground]) for x in instances]
        classes = torch.cat([x.gt_classes[:foreground] for x in instances])
        pooled = self.mask_pooler([features[f] for f in self.mask_in_features], boxes)
        logits = self.mask_head.layers(pooled)
        own = logits[torch.arange(len(logits), device=logits.device), classes if logits.shape[1] > 1 else 0]
        return {"loss_mask": F.binary_cross_entropy_with_logits(own, torch.zeros_like(own))}

    return forward_mask
