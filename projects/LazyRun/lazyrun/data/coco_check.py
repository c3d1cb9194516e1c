"""What is wrong with a COCO-format data set, found before the first iteration instead of in the middle of a run."""

import json
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig
from PIL import ExifTags, Image

from pretrain.common.errors import UserError
from pretrain.common.images import check_depth

__all__ = ["DatasetReport", "check_coco_json", "check_datasets", "read_coco_json", "upright_size"]

logger = logging.getLogger(__name__)

SIZE_SAMPLES = 64
"""Image files whose size is compared with the annotations'; opening all of a large set would take minutes."""

ON_THEIR_SIDE = (5, 6, 7, 8)
"""EXIF orientations of images whose width and height change places."""


@dataclass
class DatasetReport:
    """Counts of one data set, and its faults: one plain sentence for each kind."""

    name: str
    images: int = 0
    annotations: int = 0
    categories: int = 0
    empty_images: int = 0
    degenerate_boxes: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, kind: str, examples: list, way_out: str) -> None:
        """Notes one kind of fault, if there are examples of it."""
        if examples:
            shown = ", ".join(str(e) for e in examples[:3]) + (", …" if len(examples) > 3 else "")
            self.faults.append(f"{self.name}: {len(examples)} {kind} ({shown}); {way_out}")

    def __str__(self) -> str:
        notes = [f"{self.images} images", f"{self.annotations} annotations", f"{self.categories} categories"]
        if self.empty_images:
            notes.append(f"{self.empty_images} images without annotation")
        if self.degenerate_boxes:
            notes.append(f"{self.degenerate_boxes} boxes without area, left out")
        return f"{self.name}: {', '.join(notes)}"


def check_coco_json(
    name: str, json_file: str, image_root: str, *, training: bool, masks: bool, polygons: bool = False
) -> DatasetReport:
    """Checks one COCO-format data set.

    Args:
        name: the data set in the messages.
        json_file: annotation file.
        image_root: folder its `file_name`s are relative to.
        training: annotations are needed, and boxes must lie inside their images.
        masks: annotations need a segmentation.
        polygons: it must be polygons, as detectron2's mapper reads them by default; crowds are left out of training.

    Returns:
        counts and faults; it never raises for a fault of the data.
    """
    report = DatasetReport(name)
    content = _read(report, Path(json_file), Path(image_root))
    if content is None:
        return report
    images, annotations, categories = content
    report.images, report.annotations, report.categories = len(images), len(annotations), len(categories)
    if not images:
        report.faults.append(f"{name}: {json_file} lists no images; check that it is the right file.")
        return report
    _check_ids(report, images, annotations, categories)
    _check_files(report, images, Path(image_root))
    if not report.faults:  # the rest relies on sound ids
        _check_annotations(report, images, annotations, training, masks)
        if training and polygons:
            _check_polygons(report, annotations)
    return report


def _read(report: DatasetReport, json_file: Path, image_root: Path) -> tuple[list, list, list] | None:
    """The three lists of a COCO file; None after noting why it cannot be read."""
    if not json_file.is_file():
        report.faults.append(
            f"{report.name}: annotation file {json_file} does not exist; put the data there or set DETECTRON2_DATASETS "
            "to the folder that holds it (datasets/README.md)."
        )
    elif not image_root.is_dir():
        report.faults.append(f"{report.name}: image folder {image_root} does not exist (datasets/README.md).")
    else:
        try:
            return read_coco_json(json_file)
        except ValueError as e:
            report.faults.append(f"{report.name}: {json_file} {e}.")
    return None


def read_coco_json(json_file: Path) -> tuple[list[dict], list[dict], list[dict]]:
    """Images, annotations and categories of an existing COCO file.

    Raises:
        UserError: it is not one; the message continues a sentence that begins with the file's name.
    """
    try:
        content = json.loads(json_file.read_bytes())
        lists = tuple(content[key] for key in ("images", "annotations", "categories"))
    except KeyError as e:
        raise UserError(f"is not a COCO annotation file: it has no {e}") from e
    except (ValueError, TypeError) as e:
        raise UserError(f"is not a COCO annotation file: {e}") from e
    if not all(isinstance(entries, list) and all(isinstance(e, dict) for e in entries) for entries in lists):
        raise UserError("is not a COCO annotation file: images, annotations and categories must be lists of objects")
    return lists


def _check_ids(report: DatasetReport, images: list, annotations: list, categories: list) -> None:
    for what, entries in (("image", images), ("annotation", annotations), ("category", categories)):
        counts = Counter(entry.get("id") for entry in entries)
        report.add(
            f"{what} ids used twice or missing",
            [i for i, n in counts.items() if n > 1 or i is None],
            "make them unique.",
        )
    report.add(
        "categories without a text as name",
        [c.get("id") for c in categories if not isinstance(c.get("name"), str)],
        "give each a name in quotes.",
    )
    image_ids, category_ids = {i.get("id") for i in images}, {c.get("id") for c in categories}
    report.add(
        "annotations of unknown images",
        [a.get("id") for a in annotations if a.get("image_id") not in image_ids],
        "every image_id must be the id of an image.",
    )
    report.add(
        "category ids that no category has",
        sorted({a.get("category_id") for a in annotations} - category_ids, key=str),
        f"the file's categories have the ids {sorted(category_ids, key=str)[:10]}.",
    )


def _check_files(report: DatasetReport, images: list, root: Path) -> None:
    incomplete = [i["id"] for i in images if not all(i.get(key) for key in ("file_name", "width", "height"))]
    report.add("images without file_name, width or height", incomplete, "fill them in.")
    if incomplete:
        return
    present = set(os.listdir(root))  # one listing instead of a look-up for each of 118 000 files
    missing = [
        i["file_name"] for i in images if i["file_name"] not in present and not (root / i["file_name"]).is_file()
    ]
    report.add("image files missing", missing, f"they should be in {root}.")
    if missing:
        return
    unreadable, too_deep, resized = [], [], []
    for image in images[:: max(1, len(images) // SIZE_SAMPLES)]:
        try:
            with Image.open(root / image["file_name"]) as file:
                size = upright_size(file)
                check_depth(file)
        except ValueError:
            too_deep.append(image["file_name"])
            continue
        except OSError:
            unreadable.append(image["file_name"])
            continue
        if size != (image["width"], image["height"]):
            resized.append(f"{image['file_name']} is {size[0]}x{size[1]}, not {image['width']}x{image['height']}")
    report.add("image files that cannot be read", unreadable, "replace them.")
    report.add(
        "image files of 32 bits a pixel, whose value range is undefined", too_deep, "save them with 8 or 16 bits."
    )
    report.add("image files of another size than annotated", resized, "annotate photos as they look upright.")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a photo turned as its EXIF data say, as detectron2 reads it; nothing is decoded."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in ON_THEIR_SIDE
    except Exception:  # damaged EXIF data raise many types, and then detectron2 does not turn the image
        turned = False
    return image.size[::-1] if turned else image.size


def _check_annotations(report: DatasetReport, images: list, annotations: list, training: bool, masks: bool) -> None:
    size = {i["id"]: (i["width"], i["height"]) for i in images}
    report.empty_images = len(size) - len({a["image_id"] for a in annotations})
    malformed, outside, without_mask = [], [], []
    for annotation in annotations:
        box = annotation.get("bbox")
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
            malformed.append(annotation["id"])
            continue
        x, y, w, h = box
        width, height = size[annotation["image_id"]]
        report.degenerate_boxes += w <= 0 or h <= 0
        # Rounding makes boxes of sound data overhang by a pixel or two.
        slack_x, slack_y = max(2, 0.01 * width), max(2, 0.01 * height)
        if x < -slack_x or y < -slack_y or x + w > width + slack_x or y + h > height + slack_y:
            outside.append(f"annotation {annotation['id']}: {box} in {width}x{height}")
        if not annotation.get("segmentation") and w > 0 and h > 0:
            without_mask.append(annotation["id"])
    report.add("annotations whose bbox is not four numbers", malformed, "bbox is [x, y, width, height] in pixels.")
    report.add("boxes outside their image", outside, "bbox is [x, y, width, height] in pixels, not two corners.")
    if masks:
        report.add(
            "annotations without segmentation under a mask head",
            without_mask,
            "add masks, or train boxes alone with model.roi_heads.mask_in_features=null model.roi_heads.mask_head=null "
            "model.roi_heads.mask_pooler=null dataloader.train.mapper.use_instance_mask=false "
            "dataloader.train.mapper.recompute_boxes=false.",
        )
    if training and not annotations:
        report.faults.append(f"{report.name}: there is no annotation to train on.")
    elif training and all(a.get("iscrowd") for a in annotations):
        report.faults.append(f"{report.name}: all annotations are crowds (iscrowd), which training leaves out.")


def _check_polygons(report: DatasetReport, annotations: list) -> None:
    encoded = [a["id"] for a in annotations if isinstance(a.get("segmentation"), dict) and not a.get("iscrowd")]
    report.add(
        "single objects with run-length masks",
        encoded,
        "read masks as bitmaps with dataloader.train.mapper.instance_mask_format=bitmask.",
    )


def check_datasets(cfg: DictConfig, *, training: bool = True) -> list[DatasetReport]:
    """Checks the data sets that a run's loaders name, as far as they are registered from COCO files.

    Args:
        cfg: config of the run.
        training: check the training set too, not only the one for evaluation.

    Raises:
        UserError: with one line for each kind of fault.
    """
    masks = cfg.model.get("roi_heads", {}).get("mask_head") is not None
    mask_format = cfg.dataloader.train.mapper.get("instance_mask_format", "polygon")
    reports = []
    for split in ("train", "test") if training else ("test",):
        if split == "test" and "evaluator" not in cfg.dataloader:
            continue
        if split == "test":
            masks = masks and list(cfg.dataloader.evaluator.get("tasks") or ["segm"]) != ["bbox"]
        names = cfg.dataloader[split].dataset.names
        for name in [names] if isinstance(names, str) else names:
            report = _check_registered(
                name, training=split == "train", masks=masks, polygons=masks and mask_format == "polygon"
            )
            if report is not None:
                _check_class_count(report, cfg)
                reports.append(report)
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        raise UserError("the data set cannot be used:\n  " + "\n  ".join(faults))
    for report in reports:
        logger.info(f"Checked {report}.")
    return reports


def _check_registered(name: str, **options: bool) -> DatasetReport | None:
    if name not in DatasetCatalog.list():
        raise UserError(f"Data set {name!r} is not registered with detectron2; datasets/README.md says how to.")
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") != "coco" or "json_file" not in metadata.as_dict():
        logger.info(f"Data set {name} is not in COCO format; it is not checked.")
        return None
    return check_coco_json(name, metadata.json_file, metadata.image_root, **options)


def _check_class_count(report: DatasetReport, cfg: DictConfig) -> None:
    heads = cfg.model.get("roi_heads", cfg.model).get("num_classes")
    if heads is not None and report.categories and heads != report.categories:
        report.faults.append(
            f"{report.name}: {report.categories} categories, but model.roi_heads.num_classes={heads}; "
            f"set model.roi_heads.num_classes={report.categories}."
        )
