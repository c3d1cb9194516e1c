"""A small COCO set made in code, and its perfect predictions."""

import json
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_util

from lazyrun.data.coco.records import register_coco
from lazyrun.evaluation.coco import COCOEvaluator

WIDTH, HEIGHT = 64, 48
NAMES = ("disc", "box", "kite")


def content(images: int = 10) -> dict:
    """Two or three objects in each image: triangles in boxes of 8 to 23 pixels, of three classes in turn."""
    rng = np.random.default_rng(0)
    annotations: list[dict] = []
    for image_id in range(1, images + 1):
        for _ in range(2 + image_id % 2):
            w, h = rng.integers(8, 24, 2).tolist()
            x, y = int(rng.integers(0, WIDTH - w)), int(rng.integers(0, HEIGHT - h))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1 + len(annotations) % len(NAMES),
                    "bbox": [x, y, w, h],
                    "area": w * h / 2,
                    "segmentation": [[x, y, x + w, y, x + w, y + h]],
                    "iscrowd": 0,
                }
            )
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)],
    }


def run_lengths(annotation: dict, *, text: bool = False) -> dict:
    """The mask of an annotation with one polygon, as lists or compressed text."""
    mask = _drawn(annotation["segmentation"])
    if text:
        return {"size": [HEIGHT, WIDTH], "counts": mask_util.encode(mask)["counts"].decode()}
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, len(flat)]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *lengths] if flat[0] else lengths}


def write(folder: Path, data: dict, name: str = "data.json", encoding: str = "utf-8") -> Path:
    """Writes a COCO file."""
    file = folder / name
    file.write_bytes(json.dumps(data).encode(encoding))
    return file


def register(file: Path) -> str:
    """Registers a COCO file under its path and reads it; the images need not exist."""
    name = str(file)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_coco(name, name, str(file.parent))
    DatasetCatalog.get(name)
    return name


def perfect(data: dict) -> dict:
    """`Instances` with score 1 of every object with an area, by image id."""
    class_ids = {c["id"]: index for index, c in enumerate(sorted(data["categories"], key=lambda c: c["id"]))}
    found = {}
    for image in data["images"]:
        objects = [a for a in data["annotations"] if a["image_id"] == image["id"] and min(a["bbox"][2:]) > 0]
        corners = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        masks = [
            mask_util.decode(mask_util.merge(mask_util.frPyObjects(a["segmentation"], HEIGHT, WIDTH))) for a in objects
        ]
        found[image["id"]] = Instances(
            (HEIGHT, WIDTH),
            pred_boxes=Boxes(corners),
            scores=torch.ones(len(objects)),
            pred_classes=torch.tensor([class_ids[a["category_id"]] for a in objects], dtype=torch.long),
            pred_masks=torch.tensor(np.array(masks).reshape(-1, HEIGHT, WIDTH)).bool(),
        )
    return found


def _drawn(polygons: list) -> np.ndarray:
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, HEIGHT, WIDTH)))


def evaluate(file: Path, found: dict, **options) -> dict:
    """The metrics of predictions, by the image ids of the file."""
    evaluator = COCOEvaluator(register(file), distributed=False, **options)
    evaluator.reset()
    for image_id, instances in found.items():
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()
