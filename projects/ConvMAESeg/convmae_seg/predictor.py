"""A trained segmentation model as a function of images."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from lazyrun.inference.predictor import Predictor

__all__ = ["SegmentationPredictor"]


class SegmentationPredictor(Predictor):
    """:class:`convmae_det.Predictor` for class maps: weights, test transform and class names of a segmentation model.

        predictor = SegmentationPredictor("config.yaml", "model_best.pth")
        classes = predictor("image.jpg")
        print([predictor.class_names[c] for c in np.unique(classes)])

    `score_threshold` has no meaning here: every pixel gets a class.
    """

    def __call__(
        self, images: np.ndarray | str | os.PathLike | Sequence[np.ndarray | str | os.PathLike], **slicing: Any
    ) -> np.ndarray | list[np.ndarray]:
        """Predicts one image or a list of images, as the base class does.

        Returns:
            for each image int64 `(H, W)`: class indices into `class_names`.

        Raises:
            UserError: slices are asked for, or as of the base class.
        """
        if isinstance(images, np.ndarray | str | os.PathLike):
            return self([images], **slicing)[0]
        return [output["classes"].numpy() for output in self.outputs(images, **slicing)]
