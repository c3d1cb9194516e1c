"""Pictures of predictions beside ground truth, from COCO files."""

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.utils.visualizer import ColorMode, Visualizer
from pycocotools import mask as mask_util

__all__ = ["draw_annotations", "draw_comparison", "group_by_image"]

TITLE_HEIGHT = 22
MIN_SIDE = 320
"""Images smaller than this, in pixels, are enlarged so that labels can be read."""


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
            optionally `segmentation` (polygons or run lengths) and `score`.
        class_names: by category id.

    Returns:
        RGB uint8 `(H', W', 3)`, enlarged if the image is small.
    """
    scale = max(1, -(-MIN_SIDE // min(image.shape[:2])))
    height, width = image.shape[0] * scale, image.shape[1] * scale
    enlarged = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    visualizer = Visualizer(enlarged, instance_mode=ColorMode.SEGMENTATION)
    boxes, masks, labels, colors = [], [], [], []
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        boxes.append([x * scale, y * scale, (x + w) * scale, (y + h) * scale])
        score = f" {annotation['score']:.0%}" if "score" in annotation else ""
        labels.append(class_names[annotation["category_id"]] + score)
        colors.append(_color(list(class_names).index(annotation["category_id"])))
        if annotation.get("segmentation"):
            mask = _decode(annotation["segmentation"], *image.shape[:2])
            masks.append(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR))
    if not boxes:
        return enlarged
    drawn = visualizer.overlay_instances(
        boxes=np.array(boxes), masks=masks if len(masks) == len(boxes) else None, labels=labels, assigned_colors=colors
    )
    return drawn.get_image()


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


def _decode(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """A binary mask uint8 `(height, width)` from polygons or run lengths."""
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, height, width)
    return mask_util.decode(segmentation)


def _color(index: int) -> tuple[float, float, float]:
    """A colour for each class, RGB in [0, 1], evenly spread by the golden angle."""
    hue = np.uint8([[[int(index * 0.618034 * 180) % 180, 200, 230]]])
    return tuple(cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0] / 255)
