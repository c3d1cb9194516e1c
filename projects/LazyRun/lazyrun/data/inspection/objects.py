"""Objects that are worth a look: annotated twice, tiny, drawn out, larger than their mask, too many in an image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_util

from lazyrun.data.coco.findings import Findings
from lazyrun.data.inspection.model_input import ModelInput

__all__ = ["ObjectCase", "extreme_objects", "findings_of", "odd_objects"]

SAME = 0.9
"""IoU of two boxes of one class that are the same object, most likely."""

APART = 0.5
"""IoU of a box and the box of its mask below which one of them is wrong."""

WHOLE = 0.98
"""Share of the image that a box covers which may stand for the image as a whole."""

ROUNDING = 2.0
"""Pixels by which the edges of a box and of its mask differ in sound data."""

OVERHANG = 1.0
"""Pixels beyond the edge of the image that rounding explains."""

TINY = 4.0
"""Side in pixels, at the size of the model, below which an object is hardly to be found."""

DRAWN_OUT = 10.0
"""Ratio of the sides of a box which no anchor comes near."""

TWICE = "objects annotated twice"
WAYS_OUT = {
    TWICE: f"boxes of one class with an IoU of {SAME} or more; remove one.",
    "boxes that differ from their masks": f"IoU below {APART}; correct either.",
    "boxes that cover the whole image": "right for close-ups, wrong where they stand for the image as such.",
    "boxes that reach beyond their image": "training cuts them at its edge, evaluation does not.",
    "tiny objects": f"sides below {TINY:g} pixels as the model sees them; a larger data.image_size or tiles help.",
    "drawn-out boxes": f"one side is {DRAWN_OUT:g} times the other or more; no anchor has this shape.",
    "images with more objects than are detected": "set data.max_detections.",
}
"""Kinds of oddity, in the order in which they are shown."""


@dataclass(frozen=True)
class ObjectCase:
    """Objects of one image that are odd, or extreme.

    Attributes:
        image: as in a COCO file.
        annotations: the objects; empty for the image as a whole.
        text: what is to be seen.
        badness: the worst is the highest.
    """

    image: dict
    annotations: tuple[dict, ...]
    text: str
    badness: float


def odd_objects(images: Sequence[dict], annotations: Sequence[dict], model: ModelInput) -> dict[str, list[ObjectCase]]:
    """Oddities by kind, the worst of each first.

    Args:
        images, annotations: of a cleaned set; crowds are not looked at.
        model: what sizes are compared with.
    """
    by_image = _by_image(images, annotations)
    sizes = np.array([[i["width"], i["height"]] for i in images], dtype=np.float64).reshape(-1, 2)
    found: dict[str, list[ObjectCase]] = {kind: [] for kind in WAYS_OUT}
    for image, scale in zip(images, model.scale(sizes), strict=True):
        objects = by_image[image["id"]]
        for annotation in objects:
            for kind, text, badness in _oddities(annotation, image, float(scale)):
                found[kind].append(ObjectCase(image, (annotation,), text, badness))
        found[TWICE] += _twice(image, objects)
        if len(objects) > model.max_detections:
            text = f"{len(objects)} objects, {model.max_detections} detections at most"
            found["images with more objects than are detected"].append(ObjectCase(image, (), text, len(objects)))
    return {kind: sorted(cases, key=lambda c: -c.badness) for kind, cases in found.items() if cases}


def _by_image(images: Sequence[dict], annotations: Sequence[dict]) -> Mapping[int, list[dict]]:
    groups: dict[int, list[dict]] = {image["id"]: [] for image in images}
    for annotation in annotations:
        if not annotation.get("iscrowd"):
            groups[annotation["image_id"]].append(annotation)
    return groups


def _oddities(annotation: dict, image: dict, scale: float) -> Iterator[tuple[str, str, float]]:
    """Kind, text and badness of whatever is odd about one object."""
    x, y, w, h = annotation["bbox"]
    width, height = image["width"], image["height"]
    outline = _mask_box(annotation.get("segmentation"))
    if outline is not None and _edges_apart(annotation["bbox"], outline) > ROUNDING:
        iou = float(_ious(np.array([[x, y, w, h]]), outline)[0])
        if iou < APART:
            yield "boxes that differ from their masks", f"IoU {iou:.2f}", 1 - iou
    if min(w, width) * min(h, height) >= WHOLE * width * height:
        yield "boxes that cover the whole image", f"{w:g}x{h:g} in {width}x{height}", 0
    beyond = max(-x, -y, x + w - width, y + h - height)
    if beyond > OVERHANG:
        yield "boxes that reach beyond their image", f"by {beyond:.3g} pixels", beyond
    side = scale * float(np.sqrt(w * h))
    if side < TINY:
        yield "tiny objects", f"{w:.4g}x{h:.4g}, at the model {scale * w:.2g}x{scale * h:.2g}", -side
    ratio = max(w, h) / min(w, h)
    if ratio >= DRAWN_OUT:
        yield "drawn-out boxes", f"{w:.4g}x{h:.4g}", ratio


def _mask_box(segmentation: list | dict | None) -> np.ndarray | None:
    """x, y, width and height of a mask; None without one."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
        return mask_util.toBbox(segmentation)
    x = np.concatenate([np.asarray(polygon[::2], float) for polygon in segmentation])
    y = np.concatenate([np.asarray(polygon[1::2], float) for polygon in segmentation])
    return np.array([x.min(), y.min(), np.ptp(x), np.ptp(y)])


def _edges_apart(box: Sequence[float], other: np.ndarray) -> float:
    """The farthest distance of the same edges of two boxes, x, y, width, height."""
    one, two = (np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]]) for b in (box, other))
    return float(np.abs(one - two).max())


def _twice(image: dict, objects: Sequence[dict]) -> Iterator[ObjectCase]:
    """Pairs of objects of one class whose boxes are nearly the same."""
    boxes = np.array([a["bbox"] for a in objects], dtype=np.float64).reshape(-1, 4)
    classes = np.array([a["category_id"] for a in objects])
    for n in range(len(objects) - 1):
        ious = _ious(boxes[n + 1 :], boxes[n])
        for m in np.flatnonzero((ious >= SAME) & (classes[n + 1 :] == classes[n])):
            pair = objects[n], objects[n + 1 + int(m)]
            yield ObjectCase(image, pair, f"IoU {ious[m]:.2f}", float(ious[m]))


def _ious(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """IoU of boxes `(N, 4)` with one, all x, y, width, height: `(N,)`."""
    low = np.maximum(boxes[:, :2], box[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], box[:2] + box[2:])
    common = np.clip(high - low, 0, None).prod(1)
    return common / np.maximum(boxes[:, 2:].prod(1) + box[2:].prod() - common, np.finfo(float).tiny)


def findings_of(found: Mapping[str, list[ObjectCase]]) -> Findings:
    """The same as lists with files and annotation ids."""
    findings = Findings()
    for kind, cases in found.items():
        for case in cases:
            ids = " and ".join(str(a["id"]) for a in case.annotations)
            example = f"annotation {ids}" if ids else case.image["file_name"]
            file = case.image["file_name"] if ids else ""
            findings.note(kind, example, WAYS_OUT[kind], file=file, detail=case.text)
    return findings


def extreme_objects(images: Sequence[dict], annotations: Sequence[dict], count: int) -> dict[str, list[ObjectCase]]:
    """The most objects in an image, and the smallest, largest and most drawn-out objects; odd or not."""
    by_image = _by_image(images, annotations)
    of_image = {image["id"]: image for image in images}
    crowded = sorted((i for i in images if by_image[i["id"]]), key=lambda i: -len(by_image[i["id"]]))[:count]
    found = {"most objects": [ObjectCase(i, (), f"{len(by_image[i['id']])} objects", 0) for i in crowded]}
    objects = [a for some in by_image.values() for a in some]
    w, h = np.array([a["bbox"][2:] for a in objects], dtype=np.float64).reshape(-1, 2).T
    orders = {"smallest objects": w * h, "largest objects": -w * h, "most drawn-out objects": -np.maximum(w / h, h / w)}
    for kind, order in orders.items():
        found[kind] = []
        for annotation in (objects[n] for n in np.argsort(order, kind="stable")[:count]):
            _, _, width, height = annotation["bbox"]
            text = f"{width:.4g}x{height:.4g} pixels"
            found[kind].append(ObjectCase(of_image[annotation["image_id"]], (annotation,), text, 0))
    return {kind: cases for kind, cases in found.items() if cases}
