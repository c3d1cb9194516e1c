"""From data-set dicts to a detector's input."""

import copy

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

from lazyrun.data.corrupt import CorruptImageError
from lazyrun.data.images import read_image

__all__ = ["InstanceMapper"]


class InstanceMapper(DatasetMapper):
    """:class:`detectron2.data.DatasetMapper` for instances, which reads image files by our own reader.

    detectron2's makes white images of grey ones of 16 bits, and ends with a traceback at a damaged file.
    """

    def __call__(self, sample: dict) -> dict:
        """As the base class, for samples without label maps and precomputed proposals.

        Raises:
            CorruptImageError: the image cannot be read, or has another size than the sample says.
        """
        sample = copy.deepcopy(sample)
        image = read_image(sample["file_name"], self.image_format)
        try:
            utils.check_image_size(sample, image)
        except utils.SizeMismatchError as e:
            raise CorruptImageError(f"{sample['file_name']}: {e}") from e
        inputs = T.AugInput(image)
        transforms = self.augmentations(inputs)
        # (H, W, C) -> (C, H, W)
        sample["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        annotated = "annotations" in sample
        if annotated and self.is_train:
            self._transform_annotations(sample, transforms, inputs.image.shape[:2])
        elif annotated:
            del sample["annotations"]
        return sample
