#!/usr/bin/env python3
"""Draw COCO's instance annotations as label maps for semantic segmentation.

Label 0 is the category with the smallest id, and so on; 255, to be ignored, is what no category covers, and crowds.
Where objects overlap, the smaller one is in front. Every image of the file gets a label map of its name:

    python datasets/coco_to_label_maps.py coco/annotations/instances_val2017.json coco_labels/val2017
    … data.val_images=coco/val2017 data.val_labels=coco_labels/val2017 \
        data.class_names=coco_labels/val2017.txt data.ignore_label=255

The class names are written beside the folder. Any file in COCO's format with fewer than 255 categories will do.
"""

import argparse
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_util
from tqdm import tqdm

IGNORED = 255


def object_mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Bool `(height, width)` of polygons or run lengths."""
    if isinstance(segmentation, list):
        encoded = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = mask_util.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    return mask_util.decode(encoded).astype(bool)


def label_map(annotations: list[dict], labels: dict[int, int], height: int, width: int) -> np.ndarray:
    """Labels uint8 `(height, width)` of one image's annotations; `labels` by category id."""
    drawn = np.full((height, width), IGNORED, np.uint8)
    masks = [(a, object_mask(a["segmentation"], height, width)) for a in annotations if a.get("segmentation")]
    # Crowds are the farthest behind: an object in front of one is known.
    for annotation, mask in sorted(masks, key=lambda m: (not m[0].get("iscrowd"), -m[1].sum())):
        drawn[mask] = IGNORED if annotation.get("iscrowd") else labels[annotation["category_id"]]
    return drawn


def convert(annotation_file: Path, output: Path) -> int:
    """Writes a label map for each image to `output` and the class names to `output.txt`; returns how many."""
    content = json.loads(annotation_file.read_bytes())
    categories = sorted(content["categories"], key=lambda c: c["id"])
    if len(categories) >= IGNORED:
        sys.exit(f"error: {annotation_file} has {len(categories)} categories; label maps of 8 bits hold {IGNORED - 1}.")
    labels = {category["id"]: label for label, category in enumerate(categories)}
    annotations = defaultdict(list)
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    # Only a complete folder gets the final name.
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for image in tqdm(content["images"], desc=output.name, unit="image"):
        path = (temporary / image["file_name"]).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), label_map(annotations[image["id"]], labels, image["height"], image["width"]))
    output.with_name(f"{output.name}.txt").write_text("".join(f"{c['name']}\n" for c in categories))
    temporary.rename(output)
    return len(content["images"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="annotation file in COCO's format")
    parser.add_argument("output", type=Path, help="folder to write; must not exist yet")
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists already; remove it or name another folder")
    try:
        count = convert(args.annotations, args.output)
    except FileNotFoundError:
        sys.exit(f"error: Annotation file {args.annotations} does not exist.")
    except (ValueError, KeyError, TypeError) as e:
        sys.exit(f"error: {args.annotations} is not a COCO annotation file: {type(e).__name__}: {e}")
    print(f"{args.output}: {count} label maps; class names in {args.output}.txt")


if __name__ == "__main__":
    main()
