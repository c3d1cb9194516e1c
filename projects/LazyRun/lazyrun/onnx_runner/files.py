"""Predictions for files: overlays, label maps and results, each written whole or not at all."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lazyrun.onnx_runner.detections import Detections
from lazyrun.onnx_runner.drawing import color_of, draw_classes, draw_detections
from lazyrun.onnx_runner.images import read_rgb
from lazyrun.onnx_runner.metadata import OnnxFileError
from lazyrun.onnx_runner.model import OnnxModel

__all__ = ["predict_files"]

logger = logging.getLogger(__name__)


def predict_files(
    model: OnnxModel, images: Sequence[Path], output: Path, *, score_threshold: float = 0.5, **slicing: Any
) -> list[Path]:
    """Predicts images and writes what `tools/predict.py` writes for them.

    Args:
        model: of any task.
        images: files.
        output: folder, made if it is missing: `overlays/`, `predictions.json` and `images.json`, of a segmentation
            model `labels/` in place of predictions; of a classifier the JSON files alone.
        score_threshold: least score of what is drawn; the results hold everything.
        slicing: as of :meth:`OnnxModel.__call__`.

    Returns:
        files that cannot be read; they are named in the log and left out.

    Raises:
        OnnxFileError: an overlay would take the place of an input, or images cannot be sliced in this way.
        OSError: a file cannot be written.
    """
    model.slicing(slicing)  # a mistake in these is none of an image
    names = _names(images, output / "overlays")
    results: list[dict] = []
    entries: list[dict] = []
    unreadable = []
    for number, path in enumerate(images, start=1):
        try:
            pixels = read_rgb(path)
            found = model(pixels, **slicing)
        except OnnxFileError as e:
            logger.warning(f"{path} is skipped: {e}")
            unreadable.append(path)
            continue
        entry = {"id": number, "file_name": str(path), "width": pixels.shape[1], "height": pixels.shape[0]}
        entries.append(entry)
        if isinstance(found, Detections):
            results += found.to_coco(number, model.categories)
            shown = found[found.scores >= score_threshold]
            _write_picture(output / "overlays" / names[path], draw_detections(pixels, shown, model.class_names))
        elif found.ndim == 2:
            entry["label_map"] = _write_label_map(output, names[path], found, model.categories)
            _write_picture(output / "overlays" / names[path], draw_classes(pixels, found))
        else:
            results.append({"image_id": number, "probabilities": found.tolist()})
    _write_lists(output, model, entries, results)
    return unreadable


def _write_label_map(output: Path, name: Path, classes: np.ndarray, categories: list[dict]) -> str:
    """Writes a class map `(H, W)` with the labels of the training data, and returns its name in the output folder."""
    file = Path("labels") / f"{name}.png"
    ids = np.array([c["id"] for c in categories])
    _write_picture(output / file, ids.astype(np.uint16 if ids.max() > 255 else np.uint8)[classes])
    return file.as_posix()


def _write_lists(output: Path, model: OnnxModel, entries: list[dict], results: list[dict]) -> None:
    """Writes `images.json`, and but for class maps `predictions.json`."""
    output.mkdir(parents=True, exist_ok=True)
    categories: list[dict] = model.categories
    if model.metadata.task == "segmentation":
        categories = [{**c, "color": list(color_of(i))} for i, c in enumerate(categories)]
    else:
        _write_json(output / "predictions.json", results)
    _write_json(output / "images.json", {"images": entries, "categories": categories})


def _names(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The overlay of each image below `folder`, named by its path from the folder that all images share."""
    absolute = {image: Path(os.path.abspath(image)) for image in images}
    root = os.path.commonpath([path.parent for path in absolute.values()])
    names = {}
    for image, path in absolute.items():
        name = path.relative_to(root)
        names[image] = name if path.suffix.lower() in (".jpg", ".jpeg", ".png") else name.with_name(f"{name.name}.png")
        if (folder / names[image]).resolve() in {p.resolve() for p in absolute.values()}:
            raise OnnxFileError(f"The overlay of {image} would replace {folder / names[image]}; name another --output.")
    return names


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    Image.fromarray(pixels).save(temporary)
    temporary.replace(path)


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.json")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)
