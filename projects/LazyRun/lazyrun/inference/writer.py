"""Predictions for files: which images are meant, and what is written for each."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.structures import Instances
from pycocotools import mask as mask_util
from tqdm import tqdm

from lazyrun.inference.journal import Journal, save_json_list
from lazyrun.inference.predictor import Predictor, read_rgb
from lazyrun.viz.instances import draw_annotations
from lazyrun.viz.pictures import write_picture
from pretrain.common.commands import is_out_of_memory, message_of
from pretrain.common.errors import UserError
from pretrain.common.files import replacing, save_json

__all__ = ["PredictionWriter", "predict_images", "predict_video", "write_picture"]

logger = logging.getLogger(__name__)

LONGEST_LABEL = 180
"""Bytes of a class name in the name of a file."""


class PredictionWriter:
    """Writes what was predicted: pictures at once, results in the end; each file appears whole or not at all.

    Args:
        output: folder, made if it is missing.
        predictor: gives the classes.
        score_threshold: least score of what is drawn, cropped or masked; the results hold everything.
        crops, masks: write each object's part of the image, and its mask.
        journal: keeps the results until the end; by default a new one in `output`.
    """

    def __init__(
        self,
        output: Path,
        predictor: Predictor,
        *,
        score_threshold: float,
        crops: bool,
        masks: bool,
        journal: Journal | None = None,
    ):
        self.output, self.score_threshold, self.crops, self.masks = output, score_threshold, crops, masks
        self.predictor = predictor
        self.names = _Names({c["id"]: c["name"] for c in predictor.categories})
        output.mkdir(parents=True, exist_ok=True)
        self.journal = journal or Journal(output, {})

    def expect(self, names: Sequence[Path]) -> None:
        """Is told the names of all images before the first, those of other processes and earlier attempts as well."""

    def add(
        self, image: np.ndarray, prediction: Instances, entry: dict, name: Path, overlay_file: Path | None = None
    ) -> np.ndarray:
        """Writes one image's crops, masks and overlay, then notes its results; returns the overlay.

        In this order an image that is noted has all its files, also after a kill.

        Args:
            image: RGB uint8 `(H, W, 3)`.
            prediction: what the predictor gives for it.
            entry: what the image list says of it, with its `id`; its size is added.
            name: relative path that its files are named after.
            overlay_file: where to write the overlay; None leaves it to the caller.
        """
        results = self.predictor.to_coco(prediction, entry["id"])
        shown = [r for r in results if r["score"] >= self.score_threshold]
        for number, result in enumerate(shown):
            label = _short(re.sub(r"[^\w-]+", "_", self.names[result["category_id"]]))
            file = f"{number:03d}_{label}_{result['score']:.2f}.png"
            if self.crops:
                x, y, w, h = result["bbox"]
                crop = image[max(0, int(y)) : int(np.ceil(y + h)), max(0, int(x)) : int(np.ceil(x + w))]
                if crop.size:
                    write_picture(self.output / "crops" / name / file, crop)
            if self.masks and "segmentation" in result:
                mask = mask_util.decode(result["segmentation"]) * 255
                write_picture(self.output / "masks" / name / file, np.repeat(mask[..., None], 3, axis=2))
        overlay = draw_annotations(image, shown, self.names)
        if overlay_file is not None:
            write_picture(overlay_file, overlay)
        self.journal.add({**entry, "width": image.shape[1], "height": image.shape[0]}, results)
        return overlay

    def close(self) -> None:
        """Writes `predictions.json` (COCO results) and `images.json` (which image has which id, and the classes)."""
        save_json_list(self.journal.found(), self.output / "predictions.json")
        content = {"images": list(self.journal.entries()), "categories": self.predictor.categories}
        save_json(content, self.output / "images.json")

    def summary(self) -> str:
        """What was written, in a few words."""
        return f"{self.journal.images} images, {self.journal.results} objects"


def _short(label: str) -> str:
    """What of a class name fits into the name of a file, of 255 bytes on most file systems."""
    return label.encode()[:LONGEST_LABEL].decode(errors="ignore")


class _Names(dict):
    """Class names by category id; an unknown class is called by its number."""

    def __missing__(self, category_id: int) -> str:
        self[category_id] = f"class {category_id}"
        return self[category_id]


def predict_images(
    writer: PredictionWriter, images: Sequence[Path], ids: dict[Path, int], *, chosen: Sequence[Path] | None = None
) -> list[Path]:
    """Predicts images in batches with a progress bar and writes an overlay for each.

    Args:
        writer: takes the results; its predictor predicts.
        images: files, by which overlays are named.
        ids: image id of each file.
        chosen: those of them to predict; by default all.

    Returns:
        files that could not be read, or are too large for the memory; they are named in the log and left out.

    Raises:
        UserError: an overlay would take the place of an input.
    """
    overlays = _output_names(images, writer.output / "overlays")
    writer.expect([overlay.relative_to(writer.output / "overlays") for overlay in overlays.values()])
    images = images if chosen is None else chosen
    predictor, unreadable, batch = writer.predictor, [], []
    with tqdm(images, desc="predicting", unit="image", dynamic_ncols=True) as progress:
        for path in progress:
            try:
                batch.append((path, read_rgb(path)))
            except OSError as e:
                unreadable.append(path)
                logger.warning(f"{path} is skipped, it cannot be read as an image ({e}).")
            if len(batch) == predictor.batch_size or (batch and path == images[-1]):
                for (file, pixels), instances in zip(batch, _predict(predictor, [p for _, p in batch]), strict=True):
                    name = overlays[file].relative_to(writer.output / "overlays")
                    entry = {"id": ids[file], "file_name": str(file)}
                    if error := _add(writer, pixels, instances, entry, name, overlays[file]):
                        unreadable.append(file)
                        logger.warning(f"{file} is skipped ({message_of(error)}).")
                batch = []
    return unreadable


def _predict(predictor: Predictor, images: Sequence[np.ndarray]) -> list[Instances | Exception]:
    """Predicts a batch; an image that the model cannot take gives its error, and the others are predicted."""
    try:
        return predictor(images)
    except Exception as e:
        if not (isinstance(e, OSError) or is_out_of_memory(e)):
            raise
        return [e] if len(images) == 1 else [out for image in images for out in _predict(predictor, [image])]


def _add(
    writer: PredictionWriter,
    image: np.ndarray,
    prediction: Instances | Exception,
    entry: dict,
    name: Path,
    overlay: Path,
) -> Exception | None:
    """As :meth:`PredictionWriter.add`; the error of an image that is too large for the memory is returned."""
    if isinstance(prediction, Exception):
        return prediction
    try:
        writer.add(image, prediction, entry, name, overlay)
    except Exception as e:
        if not is_out_of_memory(e):
            raise
        return e
    return None


def predict_video(writer: PredictionWriter, video: Path) -> None:
    """Predicts every frame of a video and writes it with overlays as `overlays/<name>.mp4`.

    Raises:
        UserError: it cannot be read as a video, or its overlay would take its place.
    """
    capture = cv2.VideoCapture(str(video))
    frames, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    read, frame = capture.read()
    if not read:
        raise UserError(f"{video} cannot be read as a video.")
    target = writer.output / "overlays" / f"{video.stem}.mp4"
    if target.resolve() == video.resolve():
        raise UserError(f"The overlay would replace {video}; name another --output.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary, tqdm(total=frames or None, desc=video.name, unit="image") as progress:
        encoder: cv2.VideoWriter | None = None
        first, batch = 0, []
        while read or batch:
            if read:
                batch.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
                read, frame = capture.read()
            if len(batch) < writer.predictor.batch_size and read:
                continue
            for number, (pixels, instances) in enumerate(zip(batch, writer.predictor(batch), strict=True), start=first):
                entry = {"id": number, "file_name": video.name, "frame": number}
                name = Path(video.stem) / f"{number:06d}"
                overlay = writer.add(pixels, instances, entry, name)
                if encoder is None:
                    size = (overlay.shape[1], overlay.shape[0])
                    encoder = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), rate or 25, size)
                encoder.write(cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
            progress.update(len(batch))
            first, batch = first + len(batch), []
        if encoder is not None:
            encoder.release()
        _check_video(temporary)
    capture.release()


def _check_video(path: Path) -> None:
    """Raises OSError for a video without an index, which is written last: the encoder says nothing of a full disk."""
    capture = cv2.VideoCapture(str(path))
    readable, _ = capture.read()
    capture.release()
    if not readable:
        with open(path, "ab") as f:
            f.write(bytes(1 << 20))  # tells the reason, if it is the disk's
        raise OSError("the video encoder failed")


def _output_names(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """A file below `folder` for each image, named by its path from the folder that all of them share."""
    absolute = {image: Path(os.path.abspath(image)) for image in images}
    root = os.path.commonpath([path.parent for path in absolute.values()])
    names, taken = {}, {path.resolve() for path in images}
    for image, path in absolute.items():
        name = path.relative_to(root)
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            name = name.with_name(f"{name.name}.png")
        if (folder / name).resolve() in taken:
            raise UserError(f"The overlay of {image} would replace {folder / name}; name another --output.")
        names[image] = folder / name
        taken.add((folder / name).resolve())
    return names
