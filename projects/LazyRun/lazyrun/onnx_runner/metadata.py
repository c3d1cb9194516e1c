"""What an exported file says of itself: how images are prepared, what its outputs mean, what it was made with."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["FORMAT", "Metadata", "OnnxFileError"]

FORMAT = 1
"""Grows when a reader of today could misread what a later version writes."""

PREFIX = "lazyrun."


class OnnxFileError(ValueError):
    """A file or an image that the runner cannot use; the message names it and the way out."""


@dataclass(frozen=True)
class Metadata:
    """The facts about an exported model that are not in its graph.

    Attributes:
        task: "detection", "segmentation" or "classification".
        categories: `{"id", "name"}` of each class in the order of class indices; the id is the annotation file's.
        input_format: order of the image's channels, "RGB" or "BGR".
        resizing: steps that bring an image to the size that the model takes, see :mod:`lazyrun.onnx_runner.images`.
        largest: height and width that an image may have after these steps; a model for one size takes this alone.
        fixed_size: the model takes images of this size only.
        normalisation: `mean` and `std` of each channel, for values in [0, 255]; the graph applies them itself.
        thresholds: of a detector: `score`, `nms` and `detections_per_image`; the graph applies them itself.
        windows: of a segmentation model: `size` and `stride` of the sliding windows in pixels.
        settings: of parts of the model that can run in several ways.
        precision: of its layers, "float32", "float16" or "int8"; images and results are float32 in all.
        calibration_images: how many images the ranges of an int8 file come from; 0 if it finds them at run time.
        versions: of the packages that wrote the file.
    """

    task: str
    categories: list[dict[str, Any]]
    input_format: str
    resizing: list[dict[str, Any]]
    largest: list[int]
    fixed_size: bool = False
    normalisation: dict[str, list[float]] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    windows: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    calibration_images: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    def to_strings(self) -> dict[str, str]:
        """As ONNX files hold it: a JSON text for each attribute."""
        texts = {PREFIX + name: json.dumps(value) for name, value in asdict(self).items()}
        return texts | {f"{PREFIX}format": str(FORMAT)}

    @classmethod
    def from_strings(cls, texts: Mapping[str, str], path: str) -> "Metadata":
        """Reads what :meth:`to_strings` wrote.

        Args:
            texts: the metadata of a file.
            path: of the file, for messages.

        Raises:
            OnnxFileError: they are those of another program or of a later version.
        """
        if f"{PREFIX}format" not in texts:
            raise OnnxFileError(f"{path} was not written by tools/export_model.py: its metadata do not say what it is.")
        if texts[f"{PREFIX}format"] != str(FORMAT):
            raise OnnxFileError(
                f"{path} has format {texts[f'{PREFIX}format']}, this version reads {FORMAT}; export it again or update."
            )
        names = [f.name for f in fields(cls) if PREFIX + f.name in texts]
        try:
            return cls(**{name: json.loads(texts[PREFIX + name]) for name in names})
        except (ValueError, TypeError) as e:
            raise OnnxFileError(f"{path} is damaged: its metadata cannot be read ({e}).") from e
