"""What every format is read into: the three lists of a COCO file, and the folder its images lie in."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_util

from lazyrun.data.coco.findings import Findings
from lazyrun.data.images import LARGEST_SIDE
from lazyrun.data.inspection.facts import upright_size
from pretrain.common.errors import UserError

__all__ = ["AnnotatedSet", "CocoBuilder", "listed"]

FAULTS_SHOWN = 10
"""Most sentences about faults in one message."""


@dataclass
class AnnotatedSet:
    """One annotated set of images.

    Attributes:
        path: the file or folder that was named.
        format: what it was recognised as.
        root: folder that the images' `file_name` is relative to.
        images, annotations: as in COCO files.
        categories: as in COCO files, in the order of their ids, which is that of the model's class indices.
        notes: sentences about what was left out or decided.
        json_file: COCO file of exactly this content, where there is one.
        left_out: annotations whose mask cannot be used, which an evaluation counts neither way.
        mended: what was changed or left out, case by case.
        faults: sentences on what must be put right first; with any, the lists are not complete.
    """

    path: Path
    format: str
    root: Path
    images: list[dict]
    annotations: list[dict]
    categories: list[dict]
    notes: list[str] = field(default_factory=list)
    json_file: Path | None = None
    left_out: list[dict] = field(default_factory=list)
    mended: Findings = field(default_factory=Findings)
    faults: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Class names, by the model's class index."""
        return [c["name"] for c in self.categories]

    @property
    def content(self) -> dict[str, Any]:
        """What a COCO file of this set holds; `info` tells where the images are."""
        info = {"description": f"{self.format} of {self.path}", "image_root": str(self.root)}
        return {
            "info": info,
            "images": self.images,
            "annotations": self.annotations,
            "categories": self.categories,
        }

    def check(self) -> None:
        """Raises UserError if there are faults."""
        more = len(self.faults) - FAULTS_SHOWN
        shown = self.faults[:FAULTS_SHOWN] + ([f"and {more} more."] if more > 0 else [])
        if self.faults:
            raise UserError("\n  ".join(shown))

    def __str__(self) -> str:
        what = f"{len(self.images)} images, {len(self.annotations)} objects of {len(self.names)} classes"
        sentence = f"{self.path}: {self.format}, {what} ({listed(self.names, 10)}), images in {self.root}"
        return "; ".join([sentence, *self.notes]) + "."


def listed(entries: Iterable[object], count: int = 3) -> str:
    """The first few of some entries, with commas."""
    texts = [str(e) for e in entries]
    return ", ".join(texts[:count]) + (", …" if len(texts) > count else "")


class CocoBuilder:
    """Collects images and objects; ids count from 1.

    Args:
        names: all class names in their order; without them the names that occur are taken, in alphabetical order.
    """

    def __init__(self, names: Sequence[str] | None = None):
        self.names = None if names is None else list(names)
        self.notes: list[str] = []
        self.faults: list[str] = []
        self._files: dict[Path, dict] = {}
        self._unreadable: list[Path] = []
        self._skipped: list[str] = []
        self._annotations: list[dict] = []

    def image(self, file: Path, size: tuple[int, int] | None, where: str) -> dict | None:
        """Adds an image.

        Args:
            file: it must exist.
            size: width and height in pixels, where the annotations tell; else the file is opened. They may be anything
                that a file can state.
            where: what names it, for messages.

        Returns:
            what :meth:`add` needs; None if the file cannot be opened and so is left out.

        Raises:
            UserError: it was added before, or no image is of that size.
        """
        file = Path(os.path.abspath(file))
        if file in self._files:
            raise UserError(f"{where}: image {file} is annotated twice; remove one of the annotations.")
        if size is not None and max(size) > LARGEST_SIDE:
            raise UserError(f"{where}: it states a side of {max(size)!s:.9} pixels; correct or remove that.")
        if size is None or min(size) < 1:
            try:
                with Image.open(file) as opened:
                    size = upright_size(opened)
            except (OSError, ValueError, SyntaxError):  # Pillow's errors for damaged headers
                self._unreadable.append(file)
                return None
        self._files[file] = {"id": len(self._files) + 1, "file_name": "", "width": size[0], "height": size[1]}
        return self._files[file]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keeps a mistake in what is read here for the end, so that all of them are told at once."""
        try:
            yield
        except UserError as e:
            self.faults.append(str(e))

    def skip(self, where: str) -> None:
        """Notes an annotation that is no object with an area, such as a point."""
        self._skipped.append(where)

    def add(
        self,
        image: dict,
        label: object,
        where: str,
        *,
        box: Sequence[float] | None = None,
        polygons: Sequence[Sequence[float]] = (),
        mask: np.ndarray | None = None,
    ) -> None:
        """Adds an object of an image.

        Args:
            image: what :meth:`image` gave.
            label: its class name.
            where: file and number of the object, for messages.
            box: x, y, width, height in pixels; by default what the polygons or the mask cover.
            polygons: x, y, x, y, … in pixels, one list for each part.
            mask: bool `(height, width)` in place of polygons.

        Raises:
            UserError: it has no class, is no box or polygon, or lies outside of its image.
        """
        if not (polygons or mask is not None or box is not None):
            raise UserError(f"{where}: it has no outline; correct or remove it.")
        if not isinstance(label, str) or not label.strip():
            raise UserError(f"{where}: it has no class name; give it one or remove it.")
        if self.names is not None and label.strip() not in self.names:
            raise UserError(f"{where}: {label!r} is not among the classes {listed(self.names, 10)}.")
        numbers = [*(box or ()), *(v for polygon in polygons for v in polygon)]
        if not all(math.isfinite(v) for v in numbers):
            raise UserError(f"{where}: a coordinate is not a number; correct or remove it.")
        if any(len(polygon) < 6 for polygon in polygons):
            raise UserError(f"{where}: a polygon of fewer than three points; correct or remove it.")
        segmentation, area = _segmentation(polygons, mask)
        if box is None:
            box = _extent(polygons) if polygons else [float(v) for v in mask_util.toBbox(segmentation)]
        box = [float(v) for v in box]
        _check_box(box, image, where)
        annotation = {
            "id": len(self._annotations) + 1,
            "image_id": image["id"],
            "category_id": label.strip(),  # replaced by the id once all names are known
            "bbox": box,
            "area": box[2] * box[3] if segmentation is None else area,
            "iscrowd": 0,
        }
        self._annotations.append(annotation if segmentation is None else annotation | {"segmentation": segmentation})

    def finish(self, path: Path, format_name: str) -> AnnotatedSet:
        """The whole set.

        Raises:
            UserError: there are no images, or no classes, and no mistake that explains it.
        """
        mended = self._mended()
        if self.faults:
            return AnnotatedSet(path, format_name, path, [], [], [], self.notes, mended=mended, faults=self.faults)
        if not self._files:
            first = f" ({self._unreadable[0]} and others cannot be opened)" if self._unreadable else ""
            raise UserError(f"{path}: {format_name} without a single image{first}; check that it is the right path.")
        names = self.names or sorted({a["category_id"] for a in self._annotations})
        if not names:
            raise UserError(f"{path}: {format_name} without a single object, so its classes are not known.")
        ids = {name: number for number, name in enumerate(names, start=1)}
        for annotation in self._annotations:
            annotation["category_id"] = ids[annotation["category_id"]]
        root = _root(path, list(self._files))
        for file, entry in self._files.items():
            entry["file_name"] = file.relative_to(root).as_posix()
        if self._unreadable:
            n = len(self._unreadable)
            self.notes.append(f"{n} images that cannot be opened are left out ({listed(self._unreadable)})")
        if self._skipped:
            n = len(self._skipped)
            self.notes.append(f"{n} points, lines and the like, which have no area, are left out ({self._skipped[0]})")
        categories = [{"id": i, "name": name} for name, i in ids.items()]
        lists = list(self._files.values()), self._annotations, categories
        return AnnotatedSet(path, format_name, root, *lists, self.notes, mended=mended)

    def _mended(self) -> Findings:
        """What is left out, case by case."""
        found = Findings()
        found.add("images that cannot be opened", self._unreadable, "left out.")
        found.add("points, lines and the like, which have no area", self._skipped, "left out.")
        return found


def _root(path: Path, files: list[Path]) -> Path:
    """The named folder if all images are in it, else the folder they share."""
    folder = Path(os.path.abspath(path if path.is_dir() else path.parent))
    if all(file.is_relative_to(folder) for file in files):
        return folder
    return Path(os.path.commonpath([file.parent for file in files]))


def _segmentation(polygons: Sequence[Sequence[float]], mask: np.ndarray | None) -> tuple[list | dict | None, float]:
    """COCO's segmentation and its area in pixels."""
    if mask is not None:
        encoded = mask_util.encode(np.asfortranarray(mask, np.uint8))
        area = float(mask_util.area(encoded))
        return {"size": [int(v) for v in encoded["size"]], "counts": encoded["counts"].decode("ascii")}, area
    if not polygons:
        return None, 0.0
    return [[float(v) for v in p] for p in polygons], sum(_polygon_area(p) for p in polygons)


def _polygon_area(polygon: Sequence[float]) -> float:
    points = np.asarray(polygon, float).reshape(-1, 2)
    x, y = (points - points[0]).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _extent(polygons: Sequence[Sequence[float]]) -> list[float]:
    x = [v for polygon in polygons for v in polygon[::2]]
    y = [v for polygon in polygons for v in polygon[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _check_box(box: Sequence[float], image: dict, where: str) -> None:
    x, y, w, h = box
    width, height = image["width"], image["height"]
    if w < 0 or h < 0:
        raise UserError(f"{where}: the box {list(box)} has a negative width or height; exchange its corners.")
    # Rounding makes boxes of sound data overhang by a pixel or two, as in the check of COCO files.
    slack_x, slack_y = max(2, 0.01 * width), max(2, 0.01 * height)
    if x < -slack_x or y < -slack_y or x + w > width + slack_x or y + h > height + slack_y:
        raise UserError(
            f"{where}: the object reaches outside of its image: x {x:g} to {x + w:g}, y {y:g} to {y + h:g} in "
            f"{width}x{height}; correct or remove it."
        )
