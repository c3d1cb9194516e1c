#!/usr/bin/env python3
"""Draw a small COCO-format data set of overlapping shapes, for the demo and for trying out a set-up.

Four classes (circle, square, triangle, star) in any colour, size and rotation, partly hidden by one another, on
varied backgrounds. Annotations follow the visible part of each object. Label maps beside them have the same objects
for semantic segmentation: 0 is the background, 1 to 4 are the classes. The same seed draws the same images.
"""

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from lazyrun.viz.pictures import encode_picture
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.temporary import replacing_folder
from pretrain.common.utf8 import use_utf8

CLASSES = ("circle", "square", "triangle", "star")
CATEGORIES = [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES, start=1)]
MIN_AREA = 8  # pixels
MIN_VISIBLE = 0.4  # objects hidden further than this are not drawn


def outline(name: str, center: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """Corner points (N, 2), in pixels, of one shape inside the circle of `radius` around `center`."""

    def polar(count: int, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
        turn = np.arange(count) * 2 * math.pi / count
        length = np.resize(radii, count)
        return np.stack([length * np.cos(turn), length * np.sin(turn)], axis=1)

    if name == "circle":
        points = polar(40) * 0.9
    elif name == "square":
        points = polar(4)
    elif name == "triangle":
        points = polar(3)
    else:
        points = polar(10, (1.0, 0.42))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return points @ rotation.T * radius + center


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A gradient between two colours, under stripes, blots or grain."""
    start, end = rng.uniform(0, 255, (2, 3))
    y, x = np.mgrid[:size, :size] / size
    angle = rng.uniform(0, 2 * math.pi)
    along = (x * math.cos(angle) + y * math.sin(angle))[..., None]
    image = start + (end - start) * (along - along.min()) / np.ptp(along)
    kind = rng.integers(3)
    if kind == 0:
        image += 25 * np.sign(np.sin(2 * math.pi * rng.uniform(4, 12) * along))
    elif kind == 1:
        blots = cv2.resize(rng.normal(0, 35, (8, 8, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
        image += blots
    image += rng.normal(0, rng.uniform(2, 12), image.shape)
    return image.clip(0, 255).astype(np.uint8)


def draw(rng: np.random.Generator, size: int, max_objects: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """One image (size, size, 3) and its objects from back to front: class index and visible mask (size, size)."""
    image = background(rng, size)
    objects: list[tuple[int, np.ndarray]] = []
    for _ in range(rng.integers(1, max_objects + 1)):
        label = int(rng.integers(len(CLASSES)))
        radius = size * rng.uniform(0.14, 0.27)
        center = rng.uniform(radius * 0.8, size - radius * 0.8, 2)
        points = outline(CLASSES[label], center, radius, rng.uniform(0, 2 * math.pi))
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
        if any((m & ~mask & 1).sum() < MIN_VISIBLE * m.sum() for _, m in objects):
            continue
        objects = [(c, m & ~mask & 1) for c, m in objects]
        objects.append((label, mask))
        colour = rng.uniform(0, 255, 3)
        while np.abs(colour - image[mask > 0].mean(0)).max() < 60:  # it must stand out from what is behind it
            colour = rng.uniform(0, 255, 3)
        shade = rng.normal(0, 6, (size, size, 3)) + np.linspace(-20, 20, size)[:, None, None] * rng.choice([-1, 1])
        image = np.where(mask[..., None] > 0, (colour + shade).clip(0, 255).astype(np.uint8), image)
    return image, objects


def annotate(mask: np.ndarray) -> dict | None:
    """Polygons, box [x, y, width, height] and area, in pixels, of a mask; None if too little of it is left."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = [c for c in contours if cv2.contourArea(c) >= MIN_AREA]
    if not contours:
        return None
    kept = cv2.drawContours(np.zeros_like(mask), contours, -1, 1, cv2.FILLED)
    mask = mask & kept  # without the slivers that occlusion leaves
    polygons = [c.reshape(-1).astype(float).tolist() for c in contours]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
    return {"segmentation": polygons, "bbox": box, "area": int(mask.sum()), "iscrowd": 0}


def write_split(root: Path, split: str, count: int, seed: int, size: int, max_objects: int) -> None:
    """Writes `root/<split>/*.jpg`, `root/labels/<split>/*.png` and `root/annotations/instances_<split>.json`."""
    rng = np.random.default_rng(seed)
    (root / split).mkdir(parents=True)
    (root / "labels" / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for image_id in tqdm(range(1, count + 1), desc=f"drawing {split}", unit="image"):
        image, objects = draw(rng, size, max_objects)
        name = f"{image_id:06d}.jpg"
        (root / split / name).write_bytes(encode_picture(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 95)))
        images.append({"id": image_id, "file_name": name, "width": size, "height": size})
        labels = np.zeros((size, size), np.uint8)
        for label, mask in objects:
            labels[mask > 0] = label + 1
        (root / "labels" / split / f"{image_id:06d}.png").write_bytes(encode_picture(".png", labels))
        for label, mask in objects:
            annotation = annotate(mask)
            if annotation:
                ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1}
                annotations.append(ids | annotation)
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write; must not exist yet")
    parser.add_argument("--train", type=int, default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=200, help="validation images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--max-objects", type=int, default=4, help="objects an image at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the validation set uses seed + 1 (default: %(default)s)")
    add_traceback_option(parser)
    args = parser.parse_args()
    for name in ("train", "val", "size", "max_objects"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if args.seed < 0:
        parser.error(f"--seed must be at least 0, got {args.seed}")
    if args.output.exists():
        parser.error(f"{args.output} exists already; remove it or name another folder")
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        parser.error(f"{args.output} cannot be written: {e}")
    with exit_on_user_error(), replacing_folder(args.output) as folder:
        for split, count, seed in (("train", args.train, args.seed), ("val", args.val, args.seed + 1)):
            write_split(folder, split, count, seed, args.size, args.max_objects)


if __name__ == "__main__":
    use_utf8()
    main()
