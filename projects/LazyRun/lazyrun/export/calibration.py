"""Images from which an int8 file takes the range of its activations."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lazyrun.onnx_runner.images import prepare, read_rgb
from lazyrun.onnx_runner.metadata import Metadata, OnnxFileError
from pretrain.common.errors import UserError

__all__ = ["LEAST_IMAGES", "MOST_IMAGES", "check_calibration", "network_input"]

logger = logging.getLogger(__name__)

LEAST_IMAGES = 8
"""Ranges of fewer images say little of others."""

MOST_IMAGES = 100
"""More cost time and change the ranges little."""


def check_calibration(images: Sequence[Path], metadata: Metadata) -> list[Path]:
    """Those images that a model can take, evenly spread over all if there are many.

    Raises:
        UserError: there are too few.
    """
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).round().astype(int)]
    usable = []
    for image in chosen:
        try:
            network_input(image, metadata)
        except OnnxFileError as e:
            logger.warning(f"Calibration leaves out {image}: {e}")
            continue
        usable.append(image)
    if len(usable) < LEAST_IMAGES:
        raise UserError(
            f"Calibration needs at least {LEAST_IMAGES} images like those that the model will see, and {len(usable)} "
            f"of {len(chosen)} can be used; name a folder with more, or leave --calibration out."
        )
    if len(images) > len(chosen):
        logger.info(f"Calibration takes {len(chosen)} of {len(images)} images.")
    return usable


def network_input(image: Path, metadata: Metadata) -> np.ndarray:
    """What the runner gives a graph for an image: float32 `(1, 3, H, W)`; a model of sliding windows gets one window.

    Raises:
        OnnxFileError: the image cannot be read, or nothing is left of it.
    """
    inputs = prepare(read_rgb(image), metadata.resizing, metadata.input_format)
    top, left = (max(0, (side - most) // 2) for side, most in zip(inputs.shape[1:], metadata.largest, strict=True))
    height, width = metadata.largest
    return np.ascontiguousarray(inputs[None, :, top : top + height, left : left + width])
