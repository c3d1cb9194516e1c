#!/usr/bin/env python3
"""Join COCO images to large ones with many small objects, to try sliced prediction.

    python datasets/tile_coco.py output/demo/datasets/shapes/annotations/instances_val.json \
        output/demo/datasets/shapes/val output/large --rows 4

puts 4x4 consecutive images into each large one: output/large/images, and output/large/annotations.json with their
objects. Images of one large image are placed in fields of the size of the largest of them.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.temporary import save_json
from pretrain.common.utf8 import use_utf8


def moved(annotation: dict, x: int, y: int) -> dict:
    """An annotation with polygons at another place, in pixels."""
    if not isinstance(annotation.get("segmentation", []), list):
        raise UserError(f"Annotation {annotation['id']} has a run-length mask; polygons alone can be moved.")
    left, top, width, height = annotation["bbox"]
    result = {**annotation, "bbox": [left + x, top + y, width, height]}
    if "segmentation" in annotation:
        polygons = [np.array(p, float).reshape(-1, 2) + (x, y) for p in annotation["segmentation"]]
        result["segmentation"] = [p.flatten().tolist() for p in polygons]
    return result


def tile(truth: dict, folder: Path, output: Path, rows: int) -> dict:
    """Writes the large images, and returns their annotations; images that do not fill one more are left out."""
    from lazyrun.data.images import decode_image  # these take seconds, which --help should not
    from lazyrun.viz.pictures import write_picture

    objects = defaultdict(list)
    for annotation in truth["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    images, annotations = [], []
    groups = zip(*[iter(truth["images"])] * rows**2, strict=False)
    for number, group in enumerate(groups, start=1):
        pixels = [decode_image(folder / image["file_name"], "RGB") for image in group]
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
    return {"images": images, "annotations": annotations, "categories": truth["categories"]}


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
        truth = json.loads(args.annotations.read_text())
        if len(truth["images"]) < args.rows**2:
            raise UserError(f"{args.annotations} has {len(truth['images'])} images, --rows {args.rows} needs more.")
        truth = tile(truth, args.images, args.output / "images", args.rows)
        save_json(truth, args.output / "annotations.json")
    print(f"{len(truth['images'])} images, {len(truth['annotations'])} objects: {args.output}")


if __name__ == "__main__":
    use_utf8()
    main()
