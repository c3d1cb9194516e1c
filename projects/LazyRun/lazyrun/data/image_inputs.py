"""From the pixels of an image to a detector's input, by the test transform of a config."""

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig

from pretrain.common.errors import UserError

__all__ = ["ImageInputs"]


class ImageInputs:
    """Does to an image what the config's `dataloader.test.mapper` does to those of the test set.

    Attributes:
        format: order of the channels that the model takes, such as "RGB" or "BGR".

    Raises:
        UserError: the mapper tells neither its augmentations nor the format.
    """

    def __init__(self, cfg: DictConfig):
        try:
            mapper = cfg.dataloader.test.mapper
            self.format = mapper.image_format
            self.transform = T.AugmentationList(list(instantiate(mapper.augmentations)))
        except (AttributeError, KeyError) as e:
            raise UserError("The config's dataloader.test.mapper lacks augmentations or image_format.") from e

    def __call__(self, image: np.ndarray) -> dict:
        """detectron2's input for an image uint8 `(H, W, 3)` with channels in this format.

        Raises:
            OSError: it is too narrow to be resized.
        """
        height, width = image.shape[:2]
        inputs = T.AugInput(image)
        try:
            self.transform(inputs)
        except ValueError as e:  # of a line of pixels nothing is left
            raise OSError(f"{width}x{height} pixels cannot be brought to the size that the model takes: {e}") from e
        # (H, W, C) -> (C, H, W)
        tensor = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}
