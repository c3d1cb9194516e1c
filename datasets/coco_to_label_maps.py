#!/usr/bin/env python3
"""Draw COCO's instance annotations as label maps for semantic segmentation.

Label 0 is the category with the smallest id, and so on; 255, to be ignored, is what no category covers, and crowds.
Where objects overlap, the smaller one is in front. Every image of the file gets a label map of its name:

    python datasets/coco_to_label_maps.py coco/annotations/instances_val2017.json coco_labels/val2017
    … data.val_images=coco/val2017 data.val_labels=coco_labels/val2017 \\
        data.class_names=coco_labels/val2017.txt data.ignore_label=255

The class names are written beside the folder. Any file in COCO's format with fewer than 255 categories will do.
"""

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_util
from tqdm import tqdm

from lazyrun.viz.pictures import encode_picture
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.temporary import replacing, replacing_folder
from pretrain.common.utf8 import use_utf8

IGNORED = 255

NEEDED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id", "name"),
}
"""The lists of an annotation file, and what each of their entries must have."""


def object_mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Bool `(height, width)` of polygons or run lengths."""
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]  # fewer than three points have no area
        if not polygons:
            return np.zeros((height, width), bool)
        encoded = mask_util.merge(mask_util.frPyObjects(polygons, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = mask_util.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    if list(encoded["size"]) != [height, width]:
        raise UserError(f"a mask has the size {encoded['size']} in an image of {[height, width]}")
    return mask_util.decode(encoded).astype(bool)


def label_map(annotations: list[dict], labels: dict[int, int], height: int, width: int) -> np.ndarray:
    """Labels uint8 `(height, width)` of one image's annotations; `labels` by category id."""
    drawn = np.full((height, width), IGNORED, np.uint8)
    masks = []
    for annotation in annotations:
        if annotation.get("segmentation"):
            try:
                masks.append((annotation, object_mask(annotation["segmentation"], height, width)))
            except UserError:
                raise
            except Exception as e:  # pycocotools raises many types for a malformed mask
                raise UserError(f"the segmentation of annotation {annotation['id']} cannot be read: {e}") from e
    # Crowds are the farthest behind: an object in front of one is known.
    for annotation, mask in sorted(masks, key=lambda m: (not m[0].get("iscrowd"), -m[1].sum())):
        drawn[mask] = IGNORED if annotation.get("iscrowd") else labels[annotation["category_id"]]
    return drawn


def read(annotation_file: Path) -> dict:
    """An annotation file whose lists have all that is needed of them.

    Raises:
        UserError: it is not JSON, or something is missing.
    """
    try:
        content = json.loads(annotation_file.read_bytes())
    except ValueError as e:
        raise UserError(f"it is not a JSON file: {e}") from e
    for name, keys in NEEDED.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"it has no list of {name!r}")
        for entry in entries:
            missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if missing:
                raise UserError(f"an entry of {name!r} has no {missing[0]!r}: {json.dumps(entry)[:80]}")
    return content


def convert(annotation_file: Path, output: Path) -> int:
    """Writes a label map for each image to `output` and the class names to `output.txt`; returns how many.

    Raises:
        UserError: the file is not in COCO's format, or cannot become label maps.
    """
    content = read(annotation_file)
    categories = sorted(content["categories"], key=lambda c: c["id"])
    if not 0 < len(categories) < IGNORED:
        raise UserError(f"it has {len(categories)} categories; label maps of 8 bits hold 1 to {IGNORED - 1}")
    names = [category["name"] for category in categories]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"it names the category {twice[0]!r} twice; each class needs a name of its own")
    if not any(a.get("segmentation") and not a.get("iscrowd") for a in content["annotations"]):
        raise UserError("none of its objects has a mask (segmentation), and boxes alone cannot be drawn")
    files = label_files(content["images"])
    labels = {category["id"]: label for label, category in enumerate(categories)}
    annotations = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation["category_id"] not in labels:
            raise UserError(f"it has no category {annotation['category_id']}, that of annotation {annotation['id']}")
        annotations[annotation["image_id"]].append(annotation)
    with replacing_folder(output) as folder:
        for image, file in zip(tqdm(content["images"], desc=output.name, unit="image"), files, strict=True):
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = label_map(annotations[image["id"]], labels, image["height"], image["width"])
            path.write_bytes(encode_picture(".png", drawn))
        with replacing(output.with_name(f"{output.name}.txt")) as names_file:
            names_file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return len(files)


def label_files(images: list[dict]) -> list[Path]:
    """Relative paths of the images' label maps.

    Raises:
        UserError: there are no images, two would share one, or one lies outside of the folder that is written.
    """
    files = [Path(image["file_name"]).with_suffix(".png") for image in images]
    if not files:
        raise UserError("it lists no images")
    for image, file in zip(images, files, strict=True):
        if file.is_absolute() or ".." in file.parts:
            raise UserError(f"file_name {image['file_name']!r} must be a path below the image folder, without '..'")
    shared = [file for file, count in Counter(files).items() if count > 1]
    if shared:
        raise UserError(f"{shared[0]} would be the label map of two images; give them different names")
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="annotation file in COCO's format")
    parser.add_argument("output", type=Path, help="folder to write; must not exist yet")
    add_traceback_option(parser)
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists already; remove it or name another folder")
    with exit_on_user_error():
        if not args.annotations.is_file():
            raise UserError(f"Annotation file {args.annotations} does not exist.")
        try:
            count = convert(args.annotations, args.output)
        except UserError as e:
            raise UserError(f"{args.annotations} cannot be drawn: {e}.") from e
    print(f"{args.output}: {count} label maps; class names in {args.output}.txt")


if __name__ == "__main__":
    use_utf8()
    main()
