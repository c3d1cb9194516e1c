"""Mask, Cascade and Faster R-CNN in a form that can be exported whole: the same steps as detectron2's, on tensors of
fixed sizes.

detectron2 drops proposals and boxes as it goes. Here each step keeps a fixed number of the best and a mask of those
that count: the region proposals, the boxes that survive suppression, the detections. Only the outputs are cut to the
largest number of detections in the batch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from torch import nn

from lazyrun.export.operators import NOWHERE, check_pooler, nms_keep, pool_boxes
from pretrain.common.errors import UserError

__all__ = ["FixedSizeRCNN"]

NEVER = -1e30
"""A score below all that a network gives: boxes of no account get less, the others take part."""


class FixedSizeRCNN(nn.Module):
    """A detector as a function of one batch of images of one size, without postprocessing.

    Args:
        model: in evaluation mode; its parts are used, not copied.
        square: side in pixels of the square that images are padded to, at the bottom and right, once normalised.

    Attributes:
        names: of the outputs.

    Raises:
        UserError: the model is none whose steps are known here.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(self, model: Any, square: int):
        super().__init__()
        _check(model)
        self.model, self.square = model, square
        heads = model.roi_heads
        self.cascade = isinstance(heads, CascadeROIHeads)
        self.names = ["boxes", "scores", "classes", *(["masks"] if heads.mask_on else [])]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Args:
            images: float32 `(B, 3, H, W)` in [0, 255], in the channel order of the config, H and W at most `square`.

        Returns:
            boxes `(B, N, 4)` as x0, y0, x1, y1 in pixels of the input, scores `(B, N)`, classes int64 `(B, N)`, and
            with a mask head masks `(B, N, h, w)`, probabilities within each box. N is the largest number of detections
            of an image in the batch. Best score first; images with fewer end in score 0 and class -1.
        """
        size = images.shape[-2:]
        features = self._features(images)
        proposals, valid = self._proposals(features, size)
        boxes, scores = self._classify(features, proposals, valid, size)
        boxes, scores, classes = self._detections(boxes, scores, valid)
        count: Any = (classes >= 0).sum(1).max().item()
        if isinstance(count, torch.SymInt):
            # A tensor without rows is a case of its own for the exporter, but not for the operators of ONNX.
            torch._check(count >= 1)
            torch._check(count <= classes.shape[1])
        boxes, scores, classes = boxes[:, :count], scores[:, :count], classes[:, :count]
        if not self.model.roi_heads.mask_on:
            return boxes, scores, classes
        return boxes, scores, classes, self._masks(features, boxes, classes)

    def _features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        x = (images - self.model.pixel_mean) / self.model.pixel_std
        size = x.shape[-2], x.shape[-1]
        x = F.pad(x, (0, self.square - size[1], 0, self.square - size[0]))
        # Backbones that want to know where the padding is say how they are told.
        backbone_input = getattr(self.model, "backbone_input", None)
        return self.model.backbone(backbone_input(x, size) if backbone_input else x)

    def _proposals(self, features: dict[str, torch.Tensor], size: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The best region proposals `(B, R, 4)` of all levels, and which of them count `(B, R)`."""
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        anchors = rpn.anchor_generator(maps)
        boxes, scores = [], []
        for anchor, logits, deltas in zip(anchors, *rpn.rpn_head(maps), strict=True):
            B = logits.shape[0]
            # (B, A, H, W) -> (B, H * W * A) and (B, A * 4, H, W) -> (B, H * W * A, 4)
            logits = logits.permute(0, 2, 3, 1).flatten(1)
            deltas = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(B, -1, 4)
            best, index = logits.topk(min(logits.shape[1], rpn.pre_nms_topk[False]), dim=1)
            chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
            anchored = anchor.tensor[index]  # (B, K, 4)
            decoded = rpn.box2box_transform.apply_deltas(chosen.flatten(0, 1), anchored.flatten(0, 1))
            decoded = decoded.unflatten(0, (B, -1))
            counts = decoded.isfinite().all(-1) & best.isfinite()
            decoded = _clip(decoded, size)
            side = decoded[..., 2:] - decoded[..., :2]
            counts = counts & (side > rpn.min_box_size).all(-1)
            best = best.masked_fill(~counts, -torch.inf)
            boxes.append(decoded)
            scores.append(best.masked_fill(~nms_keep(decoded, best, rpn.nms_thresh, NEVER), -torch.inf))
        return _best(torch.cat(boxes, 1), torch.cat(scores, 1), rpn.post_nms_topk[False])

    def _classify(
        self, features: dict[str, torch.Tensor], proposals: torch.Tensor, valid: torch.Tensor, size: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes `(B, R, 1 or C, 4)` and scores `(B, R, C)` of proposals; in a cascade the stages' mean scores."""
        heads = self.model.roi_heads
        maps = [features[name] for name in heads.box_in_features]
        stages: list[tuple[Any, Any]] = [(heads.box_head, heads.box_predictor)]
        if self.cascade:
            stages = list(zip(heads.box_head, heads.box_predictor, strict=True))
        total: Any = 0
        boxes = proposals
        for number, (head, predictor) in enumerate(stages):
            if number:
                boxes = torch.where(valid[..., None], _clip(boxes, size), boxes.new_full((), NOWHERE))
            logits, deltas = predictor(head(pool_boxes(heads.box_pooler, maps, boxes)))
            scores = logits.sigmoid() if predictor.use_sigmoid_ce else logits.softmax(-1)
            total = total + scores
            decoded = predictor.box2box_transform.apply_deltas(deltas, boxes.flatten(0, 1))
            boxes = decoded.unflatten(0, proposals.shape[:2])
        scores = (total / len(stages)).unflatten(0, proposals.shape[:2])
        boxes = boxes.unflatten(-1, (-1, 4))
        finite = boxes.isfinite().flatten(2).all(-1) & scores.isfinite().all(-1)
        return _clip(boxes, size), scores[..., :-1].masked_fill(~(finite & valid)[..., None], 0)

    def _detections(
        self, boxes: torch.Tensor, scores: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Suppression within each class, then the best `test_topk_per_image`: boxes, scores, classes (-1 for none)."""
        predictor = self.model.roi_heads.box_predictor
        predictor = predictor[-1] if self.cascade else predictor
        B, R, C = scores.shape
        # (B, R, C) -> (B * C, R): a group for each class
        by_class = boxes.expand(B, R, C, 4).permute(0, 2, 1, 3)
        class_scores = scores.permute(0, 2, 1)
        keep = nms_keep(
            by_class.reshape(B * C, R, 4),
            class_scores.reshape(B * C, R),
            predictor.test_nms_thresh,
            predictor.test_score_thresh,
        )
        kept = class_scores.masked_fill(~keep.view(B, C, R), 0).permute(0, 2, 1).reshape(B, R * C)
        most = predictor.test_topk_per_image
        best, index = kept.topk(R * C if most < 0 else min(most, R * C), dim=1)
        chosen = by_class.permute(0, 2, 1, 3).reshape(B, R * C, 4).gather(1, index[..., None].expand(-1, -1, 4))
        found = best > 0
        return chosen, best, torch.where(found, index % C, -1)

    def _masks(self, features: dict[str, torch.Tensor], boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        heads = self.model.roi_heads
        maps = [features[name] for name in heads.mask_in_features]
        logits = heads.mask_head.layers(pool_boxes(heads.mask_pooler, maps, boxes))  # (B * N, C or 1, h, w)
        if logits.shape[1] > 1:
            chosen = classes.flatten().clamp(min=0)[:, None, None, None]
            logits = logits.gather(1, chosen.expand(-1, 1, *logits.shape[2:]))
        return logits[:, 0].sigmoid().unflatten(0, boxes.shape[:2])


def _clip(boxes: torch.Tensor, size: Any) -> torch.Tensor:
    """Boxes `(…, 4)` within an image of this height and width."""
    height, width = (torch.scalar_tensor(side, dtype=boxes.dtype, device=boxes.device) for side in size)
    limits = torch.stack([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)


def _best(boxes: torch.Tensor, scores: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `most` boxes `(B, N, 4)` of the largest scores `(B, N)`, and which of them have one that is finite."""
    best, index = scores.topk(min(most, scores.shape[1]), dim=1)
    valid = best > NEVER
    chosen = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return torch.where(valid[..., None], chosen, chosen.new_full((), NOWHERE)), valid


def _check(model: Any) -> None:
    """Raises UserError for a model with other steps than those of this module."""
    if not isinstance(model, GeneralizedRCNN):
        raise UserError(f"A {type(model).__name__} cannot be exported whole; detectron2's R-CNNs can.")
    heads, rpn = model.roi_heads, model.proposal_generator
    if not isinstance(rpn, RPN) or type(rpn).predict_proposals is not RPN.predict_proposals:
        raise UserError(f"Proposals of a {type(rpn).__name__} cannot be exported; those of detectron2's RPN can.")
    if not isinstance(heads, StandardROIHeads) or heads.keypoint_on:
        what = "keypoints" if getattr(heads, "keypoint_on", False) else type(heads).__name__
        raise UserError(f"Heads for {what} cannot be exported; detectron2's standard and cascade heads can.")
    check_pooler(heads.box_pooler)
    if heads.mask_on:
        if heads.mask_pooler is None or not hasattr(heads.mask_head, "layers"):
            raise UserError(f"A {type(heads.mask_head).__name__} cannot be exported; detectron2's mask heads can.")
        check_pooler(heads.mask_pooler)
