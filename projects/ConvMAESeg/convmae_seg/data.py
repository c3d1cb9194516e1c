"""From data-set dicts to the segmentor's input."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data import transforms as T

from convmae_seg.label_maps import check_same_size, read_label_map
from lazyrun.data.corrupt import CorruptImageError
from lazyrun.data.images import read_image
from pretrain.common.errors import UserError

__all__ = ["LabelMapMapper", "shared_metadata"]


class LabelMapMapper:
    """The counterpart of :class:`detectron2.data.DatasetMapper` that knows the conventions of label maps.

    detectron2's reads label maps as grey pictures of 8 bits, which makes other numbers of the indices of a palette.

    Args:
        is_train: read the label map too, and change it as the image.
        dataset_names: the data sets that the dicts are of; they must agree on classes and conventions.
        augmentations: of image and label map.
        image_format: channel order, "RGB" or "BGR".
    """

    def __init__(
        self,
        is_train: bool,
        *,
        dataset_names: str | Sequence[str],
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
    ):
        self.is_train, self.image_format = is_train, image_format
        self.augmentations = T.AugmentationList(list(augmentations))
        self.metadata = shared_metadata(dataset_names) if is_train else None

    def __call__(self, sample: dict) -> dict:
        """One dict of a data set, with `file_name` and `sem_seg_file_name`, to the model's input.

        Returns:
            the dict with `image` `(3, H, W)`, uint8 or float32 in [0, 255]; `height` and `width` of the original image
            in pixels; and in training `sem_seg` int64 `(H, W)`, 255 where nothing is to be learnt.

        Raises:
            CorruptImageError: the image cannot be read, or has another size than its label map.
            UserError: the label map cannot be read, or is not one of these classes.
        """
        sample = copy.deepcopy(sample)
        image = read_image(sample["file_name"], self.image_format)
        sample["height"], sample["width"] = image.shape[:2]
        labels = None
        if self.is_train:
            path = sample["sem_seg_file_name"]
            labels = read_label_map(path, self.metadata)
            try:
                check_same_size(path, labels.shape, sample["file_name"], image.shape[:2])
            except UserError as e:
                raise CorruptImageError(str(e)) from e
        inputs = T.AugInput(image, sem_seg=labels)
        self.augmentations(inputs)
        # (H, W, C) -> (C, H, W)
        sample["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        if labels is not None:
            sample["sem_seg"] = torch.as_tensor(np.ascontiguousarray(inputs.sem_seg))
        return sample


def shared_metadata(dataset_names: str | Sequence[str]) -> Metadata:
    """The metadata of the first of some data sets.

    Raises:
        UserError: one of them has no label maps, or they differ in their classes or in what their labels mean.
    """
    names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
    known = [MetadataCatalog.get(name) for name in names]
    for name, metadata in zip(names, known, strict=True):
        if metadata.get("stuff_classes") is None:
            raise UserError(f"Data set {name!r} has no label maps that are registered here (datasets/README.md).")
        for key in ("stuff_classes", "reduce_zero_label"):
            if (metadata.get(key) or False) != (known[0].get(key) or False):
                raise UserError(f"Data sets {names[0]} and {name} differ in {key}; train on one of them at a time.")
    return known[0]
