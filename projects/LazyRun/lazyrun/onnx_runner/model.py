"""An exported model as a function of images."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lazyrun.onnx_runner.detections import Detections, concatenate, in_original
from lazyrun.onnx_runner.images import prepare, read_rgb
from lazyrun.onnx_runner.metadata import Metadata, OnnxFileError
from lazyrun.onnx_runner.windows import class_map
from lazyrun.slices import Found, Place, Slicing, SlicingError

__all__ = ["OnnxModel"]

USUAL = 100
"""Objects of an image in files that do not tell how many they give."""


class OnnxModel:
    """A file of `tools/export_model.py`, run by ONNX Runtime.

        model = OnnxModel("detector.onnx")
        found = model("image.jpg")
        print([model.class_names[c] for c in found.classes], found.scores)

    Args:
        path: the ONNX file.
        providers: ONNX Runtime's, the first that fits is taken; None takes all that are installed.
        score_threshold: least score of what a detector returns, in [0, 1]; the file's own threshold remains.
        threads: CPU threads; None takes one for each core.

    Attributes:
        metadata: what the file says of itself.

    Raises:
        OnnxFileError: the file is missing, damaged, or of another program.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        providers: list[str] | None = None,
        score_threshold: float = 0.0,
        threads: int | None = None,
    ):
        import onnxruntime

        self.path, self.score_threshold = str(path), score_threshold
        if not Path(path).is_file():
            raise OnnxFileError(f"{path} does not exist; write it with tools/export_model.py.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        try:
            self.session = onnxruntime.InferenceSession(
                self.path, options, providers=providers or onnxruntime.get_available_providers()
            )
        except Exception as e:  # ONNX Runtime raises a dozen types
            raise OnnxFileError(f"{path} cannot be read as an ONNX model: {e}") from e
        self.metadata = Metadata.from_strings(self.session.get_modelmeta().custom_metadata_map, self.path)
        self.categories = self.metadata.categories
        self.outputs = [output.name for output in self.session.get_outputs()]

    @property
    def class_names(self) -> list[str]:
        """Names in the order of class indices; empty where the file does not tell them."""
        return [c["name"] for c in self.categories]

    def __call__(self, image: np.ndarray | str | os.PathLike, **slicing: Any) -> Detections | np.ndarray:
        """Predicts one image.

        Args:
            image: a file name or RGB uint8 `(H, W, 3)`.
            slicing: of a detector: `slice`, the side of the slices that large images are also predicted in, in pixels,
                and `slice_overlap`, `slice_whole`, `slice_metric`, `slice_threshold`, see
                :class:`lazyrun.slices.Slicing`.

        Returns:
            of a detector :class:`Detections`; of a segmentation model class indices int64 `(H, W)`; of a classifier
            the probability of each class, float32 `(K,)`.

        Raises:
            OnnxFileError: the image cannot be read, is no RGB image, or cannot be sliced in this way.
        """
        chosen = self.slicing(slicing)
        pixels = image if isinstance(image, np.ndarray) else read_rgb(os.fspath(image))
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise OnnxFileError(f"An image must be RGB uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}.")
        with _told():
            places = chosen.places(*pixels.shape[:2]) if chosen else []
        found = self._sliced(pixels, chosen, places) if chosen and places else self._predict(pixels)
        return found[found.scores >= self.score_threshold] if isinstance(found, Detections) else found

    def slicing(self, options: Mapping[str, Any]) -> Slicing | None:
        """The options of a call, None where they name no slices.

        Raises:
            OnnxFileError: a value cannot be used, or the model is no detector.
        """
        with _told():
            chosen = Slicing.from_options(options)
        if chosen and self.metadata.task != "detection":
            raise OnnxFileError(f"slice={chosen.size} is for detectors, {self.path} is for {self.metadata.task}.")
        return chosen

    def _predict(self, pixels: np.ndarray) -> Detections | np.ndarray:
        inputs = prepare(pixels, self.metadata.resizing, self.metadata.input_format)
        size = pixels.shape[0], pixels.shape[1]
        if self.metadata.task == "segmentation":
            windows = self.metadata.windows
            return class_map(inputs, size, windows["size"], windows["stride"], lambda x: self.run(x)["logits"])
        outputs = self.run(inputs[None])
        if self.metadata.task == "classification":
            return outputs["probabilities"][0]
        return self._detections(outputs, inputs.shape[1:], size)

    def _sliced(self, pixels: np.ndarray, slicing: Slicing, places: Sequence[Place]) -> Detections:
        """The merged objects of an image `(H, W, 3)`, of its slices and, if that is wanted, of the whole."""
        height, width = pixels.shape[:2]
        limit = int(self.metadata.thresholds.get("detections_per_image", USUAL))
        parts: list[Detections] = []
        cut = []
        places = [*places, (0, 0, height, width)] if slicing.whole else places
        for y, x, bottom, right in places:
            part = self._predict(pixels[y:bottom, x:right])
            assert isinstance(part, Detections)
            parts.append(replace(part, size=(height, width), boxes=part.boxes + np.array([x, y, x, y], np.float32)))
            cut.append(slicing.cut(parts[-1].boxes, (y, x, bottom, right), height, width))
        merged = concatenate(parts)
        slices = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        found = Found(merged.boxes, merged.scores, merged.classes, slices, np.concatenate(cut))
        return merged[slicing.merge(found, limit)]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's outputs by name, for float32 `(B, 3, H, W)` in [0, 255]."""
        height, width = self.metadata.largest
        if images.shape[2] > height or images.shape[3] > width:
            raise OnnxFileError(
                f"{self.path} takes images of up to {width}x{height} pixels, got {images.shape[3]}x{images.shape[2]}."
            )
        return dict(zip(self.outputs, self.session.run(None, {"images": images}), strict=True))

    def _detections(self, outputs: dict[str, Any], shape: tuple[int, ...], size: tuple[int, int]) -> Detections:
        """The outputs for one image in its own pixels."""
        down, across = (out / side for out, side in zip(size, shape, strict=True))
        if self.metadata.fixed_size:  # padded before it came here: along the side without padding is its true scale
            down = across = max(down, across)
        boxes, scores, classes = (outputs[name][0] for name in ("boxes", "scores", "classes"))
        boxes, nonempty = in_original(boxes, size, (down, across))
        kept = nonempty & (classes >= 0)
        masks = outputs["masks"][0] if "masks" in outputs else None
        return Detections(size, boxes, scores, classes, masks)[kept]


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with options of slices, as a mistake of the caller."""
    try:
        yield
    except SlicingError as e:
        raise OnnxFileError(str(e)) from e
