"""Sliced prediction with a detector: the rules are those of :mod:`lazyrun.slices`."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lazyrun.config.slicing import slicing_of
from lazyrun.data.detections import max_detections
from lazyrun.data.image_inputs import ImageInputs
from lazyrun.data.original import ORIGINAL
from lazyrun.modeling.encoded import LARGEST, EncodedMasks, bounded_masks, encode_masks, place_mask
from lazyrun.slices import Found, Place, Slicing, SlicingError
from pretrain.common.errors import UserError

__all__ = ["SlicedModel", "with_slices"]

FIELDS = {"pred_boxes", "scores", "pred_classes", "pred_masks"}
"""What is known to be moved from a slice to its image."""


def with_slices(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """The model itself, or under `test.slice` its predictions merged over slices of large images.

    Raises:
        UserError: the options cannot be used, or the model is no detector.
    """
    slicing = slicing_of(cfg)
    if slicing is None:
        return model
    model = model.module if isinstance(model, DistributedDataParallel) else model
    batch_size = cfg.dataloader.test.get("batch_size", 1)
    return SlicedModel(model, slicing, ImageInputs(cfg), limit=max_detections(cfg), batch_size=batch_size)


class SlicedModel(nn.Module):
    """A detector that also looks at the slices of large images.

    Args:
        model: gives detectron2's `{"instances"}` for each input.
        slicing: how images are sliced and results merged.
        inputs: makes the model's input of a slice.
        limit: the most objects of an image, after merging.
        batch_size: slices that go through the model at a time.
    """

    def __init__(self, model: nn.Module, slicing: Slicing, inputs: ImageInputs, *, limit: int, batch_size: int):
        super().__init__()
        self.model, self.slicing, self.inputs = model, slicing, inputs
        self.limit, self.batch_size = limit, batch_size
        self.train(model.training)  # evaluating puts the mode of the outer module back into the inner one

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """As the model's.

        Args:
            batched_inputs: the model's inputs; images to be sliced come with their pixels as
                :data:`lazyrun.data.original.ORIGINAL`. The others give what the model gives for the same batch.

        Returns:
            for sliced images Instances on the CPU, best score first.

        Raises:
            OSError: an image has too many slices.
            UserError: the model finds something that cannot be moved to another image.
        """
        plain = [{k: v for k, v in sample.items() if k != ORIGINAL} for sample in batched_inputs]
        places = [self._places(sample) for sample in batched_inputs]
        with bounded_masks():
            # A batch without its large images would differ from the whole one in the last bits.
            outputs = self.model(plain) if self.slicing.whole or not all(places) else [{} for _ in plain]
            for i, chosen in enumerate(places):
                if chosen:
                    outputs[i] = {"instances": self._sliced(batched_inputs[i][ORIGINAL], chosen, outputs[i])}
        return outputs

    def _places(self, sample: dict) -> list[Place]:
        if ORIGINAL not in sample:
            return []
        try:
            return self.slicing.places(*sample[ORIGINAL].shape[:2])
        except SlicingError as e:
            raise OSError(str(e)) from e  # as of an image that cannot be used: a job over many goes on without it

    def _sliced(self, image: np.ndarray, places: Sequence[Place], output: dict) -> Instances:
        """The merged objects of an image `(H, W, 3)`, given what the model finds in the whole of it."""
        parts = list(self._parts(image, places))
        if self.slicing.whole:
            parts.append(((0, 0, *image.shape[:2]), _compact(output["instances"])))
        height, width = image.shape[:2]
        boxes = [part.pred_boxes.tensor + torch.tensor([x, y, x, y]) for (y, x, _, _), part in parts]
        cut = [self.slicing.cut(b.numpy(), place, height, width) for b, (place, _) in zip(boxes, parts, strict=True)]
        merged = Instances((height, width), pred_boxes=Boxes(torch.cat(boxes)))
        merged.scores = torch.cat([part.scores for _, part in parts])
        merged.pred_classes = torch.cat([part.pred_classes for _, part in parts])
        slices = np.repeat(np.arange(len(parts)), [len(part) for _, part in parts])
        found = Found(
            merged.pred_boxes.tensor.numpy(),
            merged.scores.numpy(),
            merged.pred_classes.numpy(),
            slices,
            np.concatenate(cut),
        )
        kept = self.slicing.merge(found, self.limit)
        merged = merged[torch.from_numpy(kept)]
        if parts[0][1].has("pred_masks"):
            merged.pred_masks = _placed_masks(parts, slices, kept, height, width)
        return merged

    def _parts(self, image: np.ndarray, places: Sequence[Place]) -> Iterator[tuple[Place, Instances]]:
        """What is found in each slice, in pixels of the slice."""
        for start in range(0, len(places), self.batch_size):
            batch = places[start : start + self.batch_size]
            outputs = self.model([self.inputs(image[y0:y1, x0:x1]) for y0, x0, y1, x1 in batch])
            yield from ((place, _compact(output["instances"])) for place, output in zip(batch, outputs, strict=True))


def _compact(instances: Instances) -> Instances:
    """On the CPU, with masks as run lengths: those of all slices as tensors would fill the memory."""
    fields = instances.get_fields()
    if unknown := fields.keys() - FIELDS:
        raise UserError(f"slice: this model also gives {', '.join(sorted(unknown))}, which cannot be merged.")
    masks = fields.get("pred_masks")
    if masks is not None and not isinstance(masks, EncodedMasks):
        fields = {**fields, "pred_masks": encode_masks(masks)}
    return Instances(instances.image_size, **fields).to("cpu")


def _placed_masks(
    parts: Sequence[tuple[Place, Instances]], slices: np.ndarray, kept: np.ndarray, height: int, width: int
) -> torch.Tensor | EncodedMasks:
    """The masks of some objects in the whole image: bool `(N, H, W)`, or encoded if that would be too large."""
    firsts = np.searchsorted(slices, np.arange(len(parts)))
    rles = []
    for i in kept.tolist():
        (top, left, _, _), part = parts[slices[i]]
        rles.append(place_mask(part.pred_masks.rles[i - firsts[slices[i]]], top, left, height, width))
    encoded = EncodedMasks(rles)
    if len(rles) * height * width > LARGEST:
        return encoded
    masks = torch.zeros(len(rles), height, width, dtype=torch.bool)
    for mask, decoded in zip(masks, encoded, strict=True):
        mask.copy_(decoded)
    return masks
