"""What a config's loaders feed to the model, for looking at."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf

from lazyrun.data.corrupt import CorruptImageError
from lazyrun.data.loader import corrupt_option
from pretrain.common.errors import UserError

__all__ = ["Sample", "class_names", "iterate_samples"]

logger = logging.getLogger(__name__)


@dataclass
class Sample:
    """One image as the model gets it.

    Attributes:
        image: RGB uint8 `(H, W, 3)`.
        instances: with `gt_boxes`, `gt_classes` and maybe `gt_masks`; None for an image without annotations.
        file_name: of the original.
        sem_seg: class indices `(H, W)`, and 255 for ignored pixels; None without a label map.
    """

    image: np.ndarray
    instances: Instances | None
    file_name: str
    sem_seg: np.ndarray | None = None


def class_names(cfg: DictConfig, split: str) -> list[str]:
    """Names by class index of a split's data set; it must have been read before. Without names, the indices."""
    names = _loader(cfg, split).dataset.names
    first = names if isinstance(names, str) else names[0]
    metadata = MetadataCatalog.get(first)
    known = metadata.get("stuff_classes" if metadata.get("evaluator_type") == "sem_seg" else "thing_classes")
    return known or [str(i) for i in range(cfg.model.roi_heads.num_classes)]


def iterate_samples(cfg: DictConfig, split: str) -> Iterator[Sample]:
    """The samples of a config's loader, in its order.

    The training loader is the config's own, at one image a batch and in this process: with this project's loader these
    are the very first samples of a run with the same seed on one process. The test loader leaves out annotations, so
    the data set goes through its mapper with annotations switched on; the image is the one that is evaluated.

    Args:
        cfg: as for a run.
        split: `train` or `val`.

    Raises:
        UserError: the config has no such loader.
    """
    return _samples(cfg, split, _loader(cfg, split))


def _samples(cfg: DictConfig, split: str, loader: DictConfig) -> Iterator[Sample]:
    if split == "train":
        one_by_one = OmegaConf.merge(loader, {"total_batch_size": 1, "num_workers": 0}, corrupt_option(cfg))
        source: Iterator[dict[str, Any]] = itertools.chain.from_iterable(instantiate(one_by_one))
        image_format = loader.mapper.image_format
    else:
        mapper, dataset = loader.mapper.copy(), loader.dataset.copy()
        training = cfg.dataloader.get("train", {}).get("mapper", {})
        mapper.is_train = True
        for key in ("use_instance_mask", "instance_mask_format"):
            if key in training:
                mapper[key] = training[key]
        dataset.filter_empty = False
        source, image_format = _readable(instantiate(mapper), instantiate(dataset)), mapper.image_format
    for sample in source:
        image, labels = _rgb(sample["image"], image_format), sample.get("sem_seg")
        labels = None if labels is None else labels.numpy()
        yield Sample(image, sample.get("instances"), sample["file_name"], labels)


def _readable(mapper: Callable[[dict], dict], dataset: Sequence[dict]) -> Iterator[dict[str, Any]]:
    """The mapped samples, without images that cannot be used."""
    for record in dataset:
        try:
            yield mapper(record)
        except CorruptImageError as e:
            logger.warning(f"{e}: it is left out.")


def _loader(cfg: DictConfig, split: str) -> DictConfig:
    key = {"train": "train", "val": "test"}[split]
    loader = cfg.dataloader.get(key)
    if loader is None or "dataset" not in loader or "mapper" not in loader:
        raise UserError(f"The config has no dataloader.{key} with a data set and a mapper: there is nothing to show.")
    return loader


def _rgb(image: torch.Tensor, image_format: str) -> np.ndarray:
    """Pixels `(3, H, W)` in [0, 255], as mappers give them (the model normalises), to RGB `(H, W, 3)`.

    Raises:
        UserError: the pixels are something else.
    """
    if image_format not in ("RGB", "BGR") or image.shape[0] != 3:
        raise UserError(f"Images of {image.shape[0]} channels in {image_format} cannot be drawn, RGB and BGR can.")
    if image.is_floating_point() and (image.min() < 0 or image.max() <= 1):
        raise UserError("The mapper gives normalised images; detectron2's models normalise pixels in [0, 255].")
    pixels = image.permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
    if image_format == "BGR":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels.round().clip(0, 255).astype(np.uint8))


def count_objects(samples: Sequence[Sample]) -> int:
    """Annotated objects in all samples."""
    return sum(len(s.instances) for s in samples if s.instances is not None)
