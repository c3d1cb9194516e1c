"""Classifiers as ONNX files: images in, the probability of each class out."""

import argparse
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from lazyrun.export.forms import package_versions
from lazyrun.export.smaller import write_precise
from lazyrun.export.timing import Times
from lazyrun.inference.predictor import read_rgb
from lazyrun.onnx_runner.metadata import Metadata
from lazyrun.onnx_runner.model import OnnxModel
from pretrain.checkpoints.classifier_weights import load_classifier
from pretrain.checkpoints.published import local_weights
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint
from pretrain.common.onnx_files import OnnxForm
from pretrain.data.labelled import is_video
from pretrain.data.pixels import normalisation
from pretrain.data.transforms import evaluation_transform
from pretrain.evaluation.classifiers import make_classifier

__all__ = ["Probabilities", "SameProbabilities", "compare_classifier", "export_classifier", "read_classifier"]

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest accepted difference of a probability."""


class Probabilities(nn.Module):
    """A classifier behind its normalisation: float32 `(B, 3, H, W)` in [0, 255] to probabilities `(B, K)`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        for name, values in zip(("mean", "std"), normalisation(3), strict=True):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.model((images - self.mean) / self.std).softmax(-1),)


def read_classifier(weights: str) -> tuple[Probabilities, argparse.Namespace, list[str]]:
    """A classifier from a file of `python -m pretrain.finetune`, the arguments of its run, and its classes.

    The file may be named by its address (:func:`local_weights`).

    Raises:
        FileNotFoundError, UserError: the file is missing, or is no classifier that tells how it was made.
    """
    content = load_checkpoint(local_weights(weights))
    told = content.get("args") if isinstance(content, dict) else None
    values = told if isinstance(told, dict) else vars(told) if told is not None else {}
    classes = content.get("classes") if isinstance(content, dict) else None
    if not classes or "model" not in values:
        raise UserError(
            f"{weights} does not tell its model and classes, as files of python -m pretrain.finetune do; for a "
            "detector or segmentation model add --config-file."
        )
    # Earlier versions did not have all of these options.
    args = argparse.Namespace(**{"crop_pct": None, "mlp_ratio": 4.0, **values, "act_checkpoint": False})
    if is_video(args):
        raise UserError(f"{weights} classifies video; only classifiers of images can be exported.")
    if args.in_chans != 3 or args.input_size[0] != args.input_size[1]:
        size = "x".join(map(str, args.input_size))
        raise UserError(
            f"{weights} is for {args.in_chans} channels and {size} pixels; only RGB squares can be exported."
        )
    model = make_classifier(args, len(classes))
    load_classifier(model, weights)
    return Probabilities(model).eval().requires_grad_(False), args, list(classes)


def export_classifier(
    weights: str, path: Path, precision: str = "fp32", calibration: Sequence[Path] | None = None
) -> Metadata:
    """Writes a classifier as an ONNX file; the batch size stays free, the size of the images is that of its training.

    Precision and calibration images are as in :func:`lazyrun.export.smaller.write_precise`.

    Raises:
        UserError: it cannot be exported.
        OSError: the file cannot be written.
    """
    module, args, classes = read_classifier(weights)
    side = args.input_size[0]
    crop_pct = args.crop_pct or (0.875 if 64 <= side <= 224 else 1.0)
    metadata = Metadata(
        task="classification",
        categories=[{"id": i, "name": str(name)} for i, name in enumerate(classes)],
        input_format="RGB",
        resizing=[{"step": "centre_crop", "short_edge": math.floor(side / crop_pct), "height": side, "width": side}],
        largest=[side, side],
        fixed_size=True,
        normalisation={"mean": module.mean.flatten().tolist(), "std": module.std.flatten().tolist()},
        versions=package_versions("torch", "onnx", "onnxscript"),
    )
    example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255
    outputs: dict[str, list[int | str]] = {"probabilities": ["batch", len(classes)]}
    form = OnnxForm(module, example, {0: "batch"}, outputs, metadata.to_strings())
    return write_precise(form, path, precision, calibration)


@dataclass
class SameProbabilities:
    """How much two classifiers agree.

    Attributes:
        images: compared.
        same: those of them to which both give the same class.
        worst: the largest difference of a probability.
        times: of both models.
    """

    images: int = 0
    same: int = 0
    worst: float = 0.0
    times: Times = field(default_factory=Times)

    @property
    def holds(self) -> bool:
        return self.worst <= TOLERANCE

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.same} of the same class in both; "
            f"probabilities differ by up to {self.worst:.1e}{self.times}"
        )


@torch.no_grad()
def compare_classifier(weights: str, path: Path, images: Iterable[np.ndarray | Path]) -> SameProbabilities:
    """Compares an exported classifier with the eager one, on RGB arrays or files."""
    module, args, _ = read_classifier(weights)
    transform = evaluation_transform(args.input_size, 3, args.crop_pct)
    exported = OnnxModel(path, providers=["CPUExecutionProvider"], threads=torch.get_num_threads())
    result = SameProbabilities()

    def eager(pixels: np.ndarray) -> np.ndarray:
        return module.model(transform(Image.fromarray(pixels))[None]).softmax(-1)[0].numpy()

    for image in images:
        pixels = image if isinstance(image, np.ndarray) else read_rgb(image)
        expected, found = result.times.run(eager, exported, pixels)
        assert isinstance(found, np.ndarray)
        result.images += 1
        result.same += int(found.argmax() == expected.argmax())
        result.worst = max(result.worst, float(np.abs(found - expected).max()))
    return result
