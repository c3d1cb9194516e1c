"""Segmentation models as ONNX files: one window goes through the graph, the runner moves it over the image."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from convmae_seg.segmentor import Segmentor
from lazyrun.export.forms import apply_settings, package_versions
from lazyrun.export.resizing import resizing_steps
from lazyrun.export.timing import Times
from lazyrun.inference.predictor import read_rgb
from lazyrun.onnx_runner.metadata import Metadata
from lazyrun.onnx_runner.model import OnnxModel
from pretrain.common.errors import UserError
from pretrain.common.onnx_files import OnnxForm

__all__ = ["SamePixels", "WindowLogits", "compare_class_maps", "window_form"]

MIN_SAME = 0.999
"""Least share of pixels of the same class: where two classes are as likely, rounding decides."""


class WindowLogits(nn.Module):
    """The logits of a batch of windows.

    Args:
        model: in evaluation mode.
        window: side of the windows in pixels.
    """

    def __init__(self, model: Segmentor, window: int):
        super().__init__()
        self.model, self.window = model, window

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        """Float32 `(B, 3, H, W)` in [0, 255], at most a window's size, to logits `(B, K, h, w)`; padded at its end."""
        x = self.model.normalise(images)
        x = F.pad(x, (0, self.window - x.shape[-1], 0, self.window - x.shape[-2]))
        return (self.model.logits(x),)


def window_form(predictor: Any, *, square: int | None = None, settings: Mapping[str, Any] | None = None) -> OnnxForm:
    """A segmentation model as one graph from a window to logits.

    Args:
        predictor: with its weights, on the CPU.
        square: has no meaning here: the windows are those of `model.inference`.
        settings: as of :func:`lazyrun.export.forms.detector_form`.

    Raises:
        UserError: the model takes whole images, or a size is asked for.
    """
    model = predictor.model
    if not isinstance(model, Segmentor):
        raise UserError(f"A {type(model).__name__} cannot be exported; leave test.tta out.")
    window = model.inference.window_size
    if window is None:
        raise UserError("A model that takes whole images cannot be exported: set model.inference.window_size.")
    if square not in (None, window):
        raise UserError(f"--size {square}: this model takes windows of {window}; set model.inference.window_size.")
    module = WindowLogits(model, window).eval()
    metadata = Metadata(
        task="segmentation",
        categories=predictor.categories or [{"id": i, "name": f"class {i}"} for i in range(model.num_classes)],
        input_format=predictor.format,
        resizing=resizing_steps(predictor.cfg),
        largest=[window, window],
        normalisation={"mean": model.pixel_mean.flatten().tolist(), "std": model.pixel_std.flatten().tolist()},
        windows={"size": window, "stride": model.inference.stride_of(window)},
        settings=apply_settings(model, settings or {}),
        versions=package_versions("torch", "onnx", "onnxscript"),
    )
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, 3, window * 3 // 4, window * 7 // 8, generator=generator) * 255
    with torch.no_grad():
        outputs = {"logits": ["batch", *module(example)[0].shape[1:]]}
    return OnnxForm(module, example, {0: "batch", 2: "height", 3: "width"}, outputs, metadata.to_strings())


@dataclass
class SamePixels:
    """How much two models agree.

    Attributes:
        images: compared.
        share: the least share of an image's pixels that have the same class in both.
        pixels, same: all that were compared, and those of them that have the same class in both.
        times: of both models.
    """

    images: int = 0
    share: float = 1.0
    pixels: int = 0
    same: int = 0
    times: Times = field(default_factory=Times)

    @property
    def holds(self) -> bool:
        return self.share >= MIN_SAME

    def __str__(self) -> str:
        share = self.same / max(1, self.pixels)
        return (
            f"{self.images} images; {share:.3%} of all pixels, and at least {self.share:.3%} of an image's, have the "
            f"same class in both{self.times}"
        )


def compare_class_maps(predictor: Any, exported: OnnxModel, images: Iterable[np.ndarray | Path]) -> SamePixels:
    """Compares an exported model with the eager one, on RGB arrays or files."""
    result = SamePixels()
    for image in images:
        pixels = image if isinstance(image, np.ndarray) else read_rgb(image)
        eager, found = result.times.run(predictor, exported, pixels)
        same = eager == found
        result.images += 1
        result.pixels += same.size
        result.same += int(same.sum())
        result.share = min(result.share, float(same.mean()))
    return result
