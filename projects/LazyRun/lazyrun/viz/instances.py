"""Pictures of training samples, and of predictions beside ground truth."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from detectron2.structures import BitMasks, Instances, PolygonMasks
from detectron2.utils.visualizer import ColorMode, GenericMask, Visualizer
from pycocotools import mask as mask_util

from lazyrun.viz.fonts import families_for

__all__ = ["contact_sheet", "draw_annotations", "draw_comparison", "draw_instances", "group_by_image"]

TITLE_HEIGHT = 22
GAP = 6
SHEET_CELL = 400
"""Longer side of a picture on a contact sheet, in pixels."""

MIN_SIDE = 320
"""Images smaller than this, in pixels, are enlarged so that labels can be read."""

MAX_ENLARGED = 1600
"""Longer side in pixels that enlarging does not go beyond, for images that are far from square."""


MAX_DRAWN = 16_000_000
"""Pixels beyond which images are made smaller: matplotlib takes more than 100 bytes for each."""


def group_by_image(annotations: Sequence[dict]) -> dict[int, list[dict]]:
    """COCO annotations or results by `image_id`."""
    groups = defaultdict(list)
    for annotation in annotations:
        groups[annotation["image_id"]].append(annotation)
    return groups


def draw_annotations(image: np.ndarray, annotations: Sequence[dict], class_names: dict[int, str]) -> np.ndarray:
    """Boxes, masks, names and scores over an image.

    Args:
        image: RGB uint8 `(H, W, 3)`.
        annotations: COCO annotations or results with `bbox` [x, y, width, height] in pixels, `category_id`, and
            optionally `segmentation` (polygons or run lengths), `score`, a `note` to put on the label, and a `label` in
            place of the class name.
        class_names: by category id.

    Returns:
        RGB uint8 `(H', W', 3)`, enlarged if the image is small, and made smaller beyond `MAX_DRAWN` pixels.
    """
    boxes, labels, colors = [], [], []
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        boxes.append([x, y, x + w, y + h])
        score = f" {annotation['score']:.0%}" if "score" in annotation else ""
        note = f" {annotation['note']}" if "note" in annotation else ""
        labels.append(annotation.get("label", class_names[annotation["category_id"]]) + score + note)
        colors.append(_color(list(class_names).index(annotation["category_id"])))
    segmentations = [annotation["segmentation"] for annotation in annotations if annotation.get("segmentation")]
    masks = (_outline(segmentation, *image.shape[:2]) for segmentation in segmentations)
    return _overlay(image, boxes, masks, labels, colors)


def draw_instances(image: np.ndarray, instances: Instances, class_names: Sequence[str]) -> np.ndarray:
    """Boxes, masks and names of a training sample.

    Args:
        image: RGB uint8 `(H, W, 3)`.
        instances: with `gt_boxes` and `gt_classes`, and `gt_masks` if there are masks.
        class_names: by class index.

    Returns:
        RGB uint8 `(H', W', 3)`, enlarged if the image is small, and made smaller beyond `MAX_DRAWN` pixels.
    """
    classes = instances.gt_classes.tolist()
    masks = instances.gt_masks if instances.has("gt_masks") else []
    if isinstance(masks, PolygonMasks):
        masks = masks.polygons
    elif isinstance(masks, BitMasks):
        masks = list(masks.tensor.numpy().astype(np.uint8))
    return _overlay(
        image,
        instances.gt_boxes.tensor.tolist(),
        masks,
        [class_names[c] for c in classes],
        [_color(c) for c in classes],
    )


def _overlay(image: np.ndarray, boxes: Sequence, masks: Iterable, labels: list[str], colors: list) -> np.ndarray:
    """Draws boxes [x0, y0, x1, y1] in pixels over an image, and as many masks or none.

    A mask is a list of polygons, which stay sharp when the image is enlarged, or uint8 `(H, W)`. One at a time is
    looked at: those of a large image with many objects would not fit into memory together.
    """
    scale = _scale(*image.shape[:2])
    height, width = (round(side * scale) for side in image.shape[:2])
    enlarged = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    if not boxes:
        return enlarged
    polygons = [
        GenericMask(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR), height, width).polygons
        if isinstance(mask, np.ndarray)
        else [np.asarray(polygon, float) * scale for polygon in mask]
        for mask in masks
    ]
    with matplotlib.rc_context({"text.parse_math": False}):  # names of classes may hold a $
        drawn = _LabelsInside(enlarged, instance_mode=ColorMode.SEGMENTATION).overlay_instances(
            boxes=np.array(boxes) * scale,
            masks=polygons if len(polygons) == len(boxes) else None,
            labels=labels,
            assigned_colors=colors,
        )
        return drawn.get_image()


def _scale(height: int, width: int) -> float:
    """What a picture is resized by: a whole number for small ones, below 1 for those that are too large to draw."""
    if height * width > MAX_DRAWN:
        return (MAX_DRAWN / (height * width)) ** 0.5
    return max(1, min(-(-MIN_SIDE // min(height, width)), MAX_ENLARGED // max(height, width)))


def draw_comparison(
    image: np.ndarray, truth: Sequence[dict], predictions: Sequence[dict], class_names: dict[int, str]
) -> np.ndarray:
    """Ground truth on the left, predictions on the right: RGB uint8; arguments as in :func:`draw_annotations`."""
    panels = []
    for title, annotations in (("ground truth", truth), ("predictions", predictions)):
        panel = draw_annotations(image, annotations, class_names)
        bar = np.full((TITLE_HEIGHT, panel.shape[1], 3), 255, np.uint8)
        cv2.putText(bar, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        panels += [np.vstack([bar, panel]), np.full((panel.shape[0] + TITLE_HEIGHT, 4, 3), 255, np.uint8)]
    return np.hstack(panels[:-1])


class _LabelsInside(Visualizer):
    """Moves labels that would run over the right edge to the left, and draws them in fonts that have their letters."""

    CHARACTER_WIDTH = 0.6
    """Of the font size; an average."""

    def draw_text(
        self, text: str, position: tuple[float, float], *, font_size: float | None = None, **options: Any
    ) -> Any:
        points = font_size or self._default_font_size
        width = self.CHARACTER_WIDTH * len(text) * points * self.output.fig.dpi / 72
        x = max(0, min(position[0], self.output.width - width))
        output = super().draw_text(text, (x, position[1]), font_size=font_size, **options)
        output.ax.texts[-1].set_fontfamily(families_for(text))
        return output


def contact_sheet(pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4) -> np.ndarray:
    """Pictures RGB uint8 of any size in rows of equal cells, each below its title."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell = SHEET_CELL + TITLE_HEIGHT + GAP
    sheet = np.full((rows * cell, columns * (SHEET_CELL + GAP) - GAP, 3), 255, np.uint8)
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        scale = SHEET_CELL / max(picture.shape[:2])
        width, height = (max(1, round(side * scale)) for side in picture.shape[1::-1])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        y, x = (i // columns) * cell, (i % columns) * (SHEET_CELL + GAP)
        room = sheet[y : y + TITLE_HEIGHT, x : x + SHEET_CELL]
        cv2.putText(room, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        sheet[y + TITLE_HEIGHT :][:height, x : x + width] = picture
    return sheet


def _outline(segmentation: list | dict, height: int, width: int) -> list | np.ndarray:
    """Polygons as they are, run lengths as a mask uint8 `(height, width)`."""
    if isinstance(segmentation, list):
        return segmentation
    if isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, height, width)
    return mask_util.decode(segmentation)


def _color(index: int) -> tuple[float, float, float]:
    """A colour for each class, RGB in [0, 1], evenly spread by the golden angle."""
    hue = np.array([[[int(index * 0.618034 * 180) % 180, 200, 230]]], np.uint8)
    return tuple(cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0] / 255)
