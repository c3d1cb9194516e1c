"""Cleaned COCO files as data sets of detectron2."""

import logging
import os
from collections import defaultdict
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from lazyrun.data.coco.content import CocoContent, load
from pretrain.common.errors import UserError

__all__ = ["read_records", "register_coco"]

logger = logging.getLogger(__name__)

KEPT = ("iscrowd", "bbox", "keypoints", "category_id")


def register_coco(name: str, json_file: str, image_root: str, metadata: dict[str, Any] | None = None) -> None:
    """The counterpart of :func:`detectron2.data.datasets.register_coco_instances` that reads cleaned files.

    Args:
        name: of the data set; it must not be registered yet.
        json_file: COCO file, which is read when the data set is asked for.
        image_root: folder that its file names are relative to.
        metadata: more metadata of the data set.
    """
    DatasetCatalog.register(name, lambda: read_records(json_file, image_root, name))
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root, evaluator_type="coco", **(metadata or {}))


def read_records(json_file: str, image_root: str, dataset_name: str) -> list[dict]:
    """A COCO file as dicts in detectron2's standard format, in the order of image ids.

    They are those of :func:`detectron2.data.datasets.load_coco_json` for a sound file. Class names and ids are added to
    the metadata of the data set.

    Raises:
        UserError: the file is not COCO or has faults.
    """
    try:
        content = load(json_file)
    except OSError as e:
        raise UserError(f"Annotation file {json_file} cannot be read: {e.strerror}.") from e
    except UserError as e:
        raise UserError(f"{json_file} {e}.") from e
    content.check(json_file)
    class_ids = {c["id"]: index for index, c in enumerate(content.categories)}
    MetadataCatalog.get(dataset_name).set(
        thing_classes=[c["name"] for c in content.categories], thing_dataset_id_to_contiguous_id=class_ids
    )
    records = _records(content, image_root, class_ids)
    logger.info(f"Loaded {len(records)} images in COCO format from {json_file}")
    return records


def _records(content: CocoContent, image_root: str, class_ids: dict[int, int]) -> list[dict]:
    annotations = defaultdict(list)
    for annotation in content.annotations:
        annotations[annotation["image_id"]].append(annotation)
    return [
        {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [_object(a, class_ids) for a in annotations[image["id"]]],
        }
        for image in sorted(content.images, key=lambda i: i["id"])
    ]


def _object(annotation: dict, class_ids: dict[int, int]) -> dict:
    entry = {key: annotation[key] for key in KEPT if key in annotation}
    mask = annotation.get("segmentation")
    if isinstance(mask, dict) and isinstance(mask["counts"], list):
        mask = mask_util.frPyObjects(mask, *mask["size"])
    if mask:
        entry["segmentation"] = mask
    if entry.get("keypoints"):  # pixel indices, to the middle of the pixel
        entry["keypoints"] = [v if i % 3 == 2 else v + 0.5 for i, v in enumerate(entry["keypoints"])]
    return entry | {"bbox_mode": BoxMode.XYWH_ABS, "category_id": class_ids[entry["category_id"]]}
