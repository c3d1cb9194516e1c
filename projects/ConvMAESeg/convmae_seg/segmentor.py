"""A semantic segmentation model in detectron2's format of inputs and losses."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import ImageList
from detectron2.utils import comm
from torch import nn
from torch.utils.checkpoint import checkpoint

from convmae_seg.sliding_window import Piece, SlidingWindow, View, pieces
from convmae_seg.tta import SegmentorTTA
from pretrain.common.errors import UserError

__all__ = ["Segmentor"]

# Logits at the size of the labels that the loss computes together and keeps; of more it recomputes pieces of that size.
LOSS_LOGITS = 2**22


class Segmentor(nn.Module):
    """Backbone, decode head and auxiliary head: UperNet (arXiv:1807.10221) on ConvMAE's ConvViT (arXiv:2205.03892).

    Args:
        backbone: gives features by name; has `stride` and `min_size`.
        decode_head: logits from the features.
        auxiliary_head: logits for a second loss, in training only; None for none.
        num_classes: classes K to tell apart.
        pixel_mean, pixel_std: of each channel, in `input_format`'s order, for values of 0 to 255.
        input_format: order of the channels.
        ignore_label: value of label maps where nothing is to be learned.
        auxiliary_weight: of the auxiliary loss.
        inference: how images are looked at in evaluation.
        return_logits: give logits beside the class maps, for whoever wants them whole: 150 classes of a photo of 24
            megapixels take 14 GB.

    Raises:
        UserError: the windows of `inference` are not what the backbone takes.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor
    backbone: Any  # whose `stride` and `min_size` nn.Module's types do not know

    def __init__(
        self,
        backbone: Any,
        decode_head: nn.Module,
        auxiliary_head: nn.Module | None,
        num_classes: int,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        input_format: str = "RGB",
        ignore_label: int = 255,
        auxiliary_weight: float = 0.4,
        inference: SlidingWindow = SlidingWindow(),
        return_logits: bool = False,
    ):
        super().__init__()
        window = inference.window_size
        if window is not None and (window % backbone.stride or window < backbone.min_size):
            raise UserError(
                f"Windows of {window} pixels are not a multiple of the backbone's stride {backbone.stride}, or below "
                f"{backbone.min_size} pixels; set model.inference.window_size."
            )
        self.backbone, self.decode_head, self.auxiliary_head = backbone, decode_head, auxiliary_head
        self.num_classes, self.ignore_label = num_classes, ignore_label
        self.input_format, self.auxiliary_weight = input_format, auxiliary_weight
        self.inference, self.return_logits = inference, return_logits
        # (C,) -> (C, 1, 1)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """
        Args:
            batched_inputs: of each image `image` `(C, H, W)` with values of 0 to 255, in training `sem_seg` `(H, W)`
                with classes 0 to K - 1 and `ignore_label`, in evaluation `height` and `width` of the original image
                (those of `image` where they are missing).

        Returns:
            in training the weighted losses `loss_decode` and `loss_aux`; in evaluation for each image `classes`,
            `(height, width)` int64 on the CPU, and under `return_logits` also `sem_seg`, `(K, height, width)` float32.

        Raises:
            UserError: training with a single image: pyramid pooling's batch norm would see one value.
        """
        if not self.training:
            return [self._segment(inputs) for inputs in batched_inputs]
        if len(batched_inputs) * comm.get_world_size() == 1:
            raise UserError(
                "UperNet's batch norms need two images or more in a forward pass; raise "
                "dataloader.train.total_batch_size, or lower train.grad_accum_steps."
            )
        images = self._batch([self.normalise(x["image"]) for x in batched_inputs], 0.0)
        targets = self._batch([x["sem_seg"].to(self.device) for x in batched_inputs], self.ignore_label)
        features = self.backbone(images)
        losses = {"loss_decode": self._loss(self.decode_head(features), targets)}
        if self.auxiliary_head is not None:
            losses["loss_aux"] = self.auxiliary_weight * self._loss(self.auxiliary_head(features), targets)
        return losses

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """The decode head's logits `(B, K, h, w)` of normalised images `(B, C, H, W)`."""
        return self.decode_head(self.backbone(images))

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        return (image.to(self.device) - self.pixel_mean) / self.pixel_std

    def with_tta(self, scales: Sequence[float], flip: bool) -> SegmentorTTA:
        """This model with predictions averaged over scaled and mirrored images."""
        return SegmentorTTA(self, scales, flip)

    def _segment(self, inputs: dict) -> dict[str, torch.Tensor]:
        image = inputs["image"]
        size = inputs.get("height", image.shape[-2]), inputs.get("width", image.shape[-1])
        return self.decide([self.view(image, size)], size)

    def view(self, image: torch.Tensor, size: tuple[int, int], flip: bool = False) -> View:
        """An image to be looked at: `(C, H, W)`, of an original image of this size."""
        stride, min_size = self.backbone.stride, self.backbone.min_size
        return View(self.normalise(image), size, self.inference, self.logits, stride, min_size, flip)

    @torch.no_grad()
    def decide(self, views: Sequence[View], size: tuple[int, int]) -> dict[str, torch.Tensor]:
        """The output for one image: classes of the largest logit, or of the largest mean probability of several views.

        Args:
            views: of the image.
            size: height and width of the original image.
        """
        output = {"classes": torch.empty(size, dtype=torch.int64)}
        if self.return_logits:
            output["sem_seg"] = torch.empty(self.num_classes, *size, device=self.device)
        for rows, columns in pieces(self.num_classes, size, self.inference.max_logits):
            scores = _scores(views, (rows, columns))
            output["classes"][rows, columns] = scores.max(0).indices.cpu()  # on CPUs twice as fast as argmax
            if self.return_logits:
                output["sem_seg"][:, rows, columns] = scores
        return output

    def _batch(self, tensors: list[torch.Tensor], pad_value: float) -> torch.Tensor:
        stride = self.backbone.stride
        return ImageList.from_tensors(tensors, stride, pad_value=pad_value).tensor

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over all pixels; ignored ones count as 0, as in the published training.

        So every labelled pixel weighs the same whatever surrounds it, a large batch is the mean of its parts, and the
        loss of an image without a label is 0. Many logits at the size of the labels are computed again in the backward
        pass instead of kept: for 150 classes they are 157 MB for each image of 512×512 pixels, and as much in the
        softmax.
        """
        images = LOSS_LOGITS // (self.num_classes * targets[0].numel())
        if images >= len(targets):
            return _sum_cross_entropy(logits, targets, self.ignore_label) / targets.numel()
        images = max(1, images)
        losses = [
            checkpoint(_sum_cross_entropy, x, target, self.ignore_label, use_reentrant=False)
            for x, target in zip(logits.split(images), targets.split(images), strict=True)
        ]
        return torch.stack(losses).sum() / targets.numel()


def _sum_cross_entropy(logits: torch.Tensor, targets: torch.Tensor, ignore_label: int) -> torch.Tensor:
    # The heads' channels-last logits would make the softmax over 150 classes of 512×512 pixels half as fast on a CPU.
    logits = logits.float().contiguous()
    logits = F.interpolate(logits, size=targets.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, targets, ignore_index=ignore_label, reduction="sum")


def _scores(views: Sequence[View], piece: Piece) -> torch.Tensor:
    """Logits of one view, the mean of the probabilities of several."""
    if len(views) == 1:
        return views[0].logits(piece)
    total = views[0].logits(piece).softmax(0)
    for view in views[1:]:
        total += view.logits(piece).softmax(0)
    return total / len(views)
