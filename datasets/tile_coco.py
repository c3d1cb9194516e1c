#!/usr/bin/env python3
"""Join COCO images to large ones with many small objects, to try sliced prediction.

    python datasets/tile_coco.py output/demo/datasets/shapes/annotations/instances_val.json \\
        output/demo/datasets/shapes/val output/large --rows 4

puts 4x4 consecutive images into each large one: output/large/images, and output/large/annotations.json with their
objects. Images of one large image are placed in fields of the size of the largest of them.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.temporary import save_json
from pretrain.common.utf8 import use_utf8

if TYPE_CHECKING:
    from lazyrun.data.coco.content import CocoContent


def moved(annotation: dict, x: int, y: int) -> dict:
    """An annotation with polygons at another place, in pixels."""
    mask = annotation.get("segmentation")
    if isinstance(mask, dict):
        raise UserError(f"Annotation {annotation['id']} has a run-length mask; polygons alone can be moved.")
    left, top, width, height = annotation["bbox"]
    result = {**annotation, "bbox": [left + x, top + y, width, height]}
    if mask:
        polygons = [np.array(p, float).reshape(-1, 2) + (x, y) for p in mask]
        result["segmentation"] = [p.flatten().tolist() for p in polygons]
    return result


def read(annotations: Path, rows: int) -> "CocoContent":
    """The objects that training would see, of images that fill at least one large one."""
    from lazyrun.data.coco.content import load  # this takes seconds, which --help should not

    try:
        content = load(annotations)
    except UserError as e:
        raise UserError(f"{annotations} {e}.") from e
    content.check(annotations)
    if len(content.images) < rows**2:
        raise UserError(f"{annotations} has {len(content.images)} images, --rows {rows} needs more.")
    return content


def check_output(output: Path, annotations: Path, images: Path) -> None:
    """Raises UserError if what is written would replace what is read."""
    if (output / "images").resolve() == images.resolve():
        raise UserError(f"{images} is read, and the large images would be written to it; choose another output folder.")
    if (output / "annotations.json").resolve() == annotations.resolve():
        raise UserError(f"{annotations} is read, and would be replaced; choose another output folder.")


def tile(truth: "CocoContent", folder: Path, output: Path, rows: int) -> dict:
    """Writes the large images, and returns their annotations; images that do not fill one more are left out."""
    from lazyrun.data.images import read_image
    from lazyrun.viz.pictures import write_picture

    objects = defaultdict(list)
    for annotation in truth.annotations:
        objects[annotation["image_id"]].append(annotation)
    images, annotations = [], []
    groups = zip(*[iter(truth.images)] * rows**2, strict=False)
    for number, group in enumerate(groups, start=1):
        pixels = [read_image(folder / image["file_name"], "RGB") for image in group]
        height, width = (max(p.shape[axis] for p in pixels) for axis in (0, 1))
        large = np.zeros((rows * height, rows * width, 3), np.uint8)
        for place, (image, part) in enumerate(zip(group, pixels, strict=True)):
            y, x = place // rows * height, place % rows * width
            large[y : y + part.shape[0], x : x + part.shape[1]] = part
            for annotation in objects[image["id"]]:
                annotations.append({**moved(annotation, x, y), "id": len(annotations) + 1, "image_id": number})
        name = f"{number:06d}.png"
        write_picture(output / name, large)
        images.append({"id": number, "file_name": name, "height": large.shape[0], "width": large.shape[1]})
    return {"images": images, "annotations": annotations, "categories": truth.categories}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="COCO JSON")
    parser.add_argument("images", type=Path, help="folder of its images")
    parser.add_argument("output", type=Path, help="folder for the large images and their annotations")
    parser.add_argument("--rows", type=int, default=2, help="rows, and images in each (default: %(default)s)")
    add_traceback_option(parser)
    args = parser.parse_args()
    if args.rows < 1:
        parser.error(f"--rows must be at least 1, got {args.rows}")
    with exit_on_user_error():
        check_output(args.output, args.annotations, args.images)
        truth = tile(read(args.annotations, args.rows), args.images, args.output / "images", args.rows)
        save_json(truth, args.output / "annotations.json")
    print(f"{len(truth['images'])} images, {len(truth['annotations'])} objects: {args.output}")


if __name__ == "__main__":
    use_utf8()
    main()
