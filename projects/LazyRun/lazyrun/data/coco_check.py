"""What is wrong with a COCO-format data set, found before the first iteration instead of in the middle of a run."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig

from lazyrun.data.coco.boxes import BOX
from lazyrun.data.coco.content import CocoContent, load
from lazyrun.data.coco.files import check_files, upright_size
from lazyrun.data.coco.reading import read_coco_json
from lazyrun.data.corrupt import MAX_CORRUPT, share_of_corrupt
from lazyrun.data.detections import max_detections
from pretrain.common.errors import UserError

__all__ = ["DatasetReport", "check_coco_json", "check_datasets", "read_coco_json", "upright_size"]

logger = logging.getLogger(__name__)

WITHOUT_MASKS = (
    "add masks, or train boxes alone with model.roi_heads.mask_in_features=null model.roi_heads.mask_head=null "
    "model.roi_heads.mask_pooler=null dataloader.train.mapper.use_instance_mask=false "
    "dataloader.train.mapper.recompute_boxes=false."
)


@dataclass
class DatasetReport:
    """Counts of one data set, and its faults: one plain sentence for each kind.

    Attributes:
        mended: what was changed or left out, one sentence for each kind.
        skipped: image files that are left out, with the reason.
        most_objects: in one image, crowds not counted.
        objects: in each image that has some, by image id.
    """

    name: str
    images: int = 0
    annotations: int = 0
    categories: int = 0
    empty_images: int = 0
    degenerate_boxes: int = 0
    faults: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    objects: Counter = field(default_factory=Counter)

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
    name: str,
    json_file: str,
    image_root: str,
    *,
    training: bool,
    masks: bool,
    polygons: bool = False,
    max_corrupt: float = MAX_CORRUPT,
) -> DatasetReport:
    """Checks one COCO-format data set.

    Args:
        name: the data set in the messages.
        json_file: annotation file.
        image_root: folder its `file_name`s are relative to.
        training: the set is trained on; else it is evaluated on.
        masks: annotations need a segmentation.
        polygons: it must be polygons, as detectron2's mapper reads them by default; crowds are left out of training.
        max_corrupt: share of the image files that may be unreadable or of another size than annotated.

    Returns:
        counts and faults; it never raises for a fault of the data.
    """
    report = DatasetReport(name)
    content = _read(report, Path(json_file), Path(image_root))
    if content is None:
        return report
    _count(report, content)
    if not report.images:
        report.faults.append(f"{name}: {json_file} lists no images; check that it is the right file.")
        return report
    report.faults += [f"{name}: {sentence}" for sentence in content.faults.sentences()]
    if not report.faults:
        report.faults += [f"{name}: {sentence}" for sentence in content.doubts.sentences()]
        faults, report.skipped = check_files(content.images, Path(image_root), max_corrupt)
        report.faults += [f"{name}: {sentence}" for sentence in faults.sentences()]
        _check_objects(report, content, masks=masks, polygons=training and polygons)
        if training:
            _check_not_empty(report, "train on")
    return report


def _read(report: DatasetReport, json_file: Path, image_root: Path) -> CocoContent | None:
    """What a COCO file holds; None after noting why it cannot be read."""
    if not json_file.is_file():
        report.faults.append(
            f"{report.name}: annotation file {json_file} does not exist; put the data there or set DETECTRON2_DATASETS "
            "to the folder that holds it (datasets/README.md)."
        )
    elif not image_root.is_dir():
        report.faults.append(f"{report.name}: image folder {image_root} does not exist (datasets/README.md).")
    else:
        try:
            return load(json_file)
        except ValueError as e:
            report.faults.append(f"{report.name}: {json_file} {e}.")
    return None


def _count(report: DatasetReport, content: CocoContent) -> None:
    used = content.annotations
    report.images, report.categories = len(content.images), len(content.categories)
    report.annotations = len(used) + len(content.left_out) + content.without_area
    report.degenerate_boxes = content.without_area
    report.mended = content.mended.sentences()
    report.objects = Counter(a["image_id"] for a in used if not a.get("iscrowd"))
    report.empty_images = report.images - len({a["image_id"] for a in used})


def _check_objects(report: DatasetReport, content: CocoContent, *, masks: bool, polygons: bool) -> None:
    """Whether the masks are what the model needs."""
    used = content.annotations
    if masks and report.objects:
        without = [a["id"] for a in used if not a.get("segmentation")]
        report.add("annotations without segmentation under a mask head", without, WITHOUT_MASKS)
    if polygons:
        encoded = [a["id"] for a in used if isinstance(a.get("segmentation"), dict) and not a.get("iscrowd")]
        report.add(
            "single objects with run-length masks",
            encoded,
            "read masks as bitmaps with dataloader.train.mapper.instance_mask_format=bitmask.",
        )


def _check_not_empty(report: DatasetReport, purpose: str) -> None:
    """Notes a fault if no object is left to `purpose`."""
    if report.faults or report.objects:
        return
    if report.degenerate_boxes and report.degenerate_boxes == report.annotations:
        fault = f"none of its {report.annotations} boxes has an area; {BOX}"
    elif report.annotations:
        fault = f"all annotations are crowds (iscrowd), which training leaves out: there is none to {purpose}."
    else:
        fault = f"there is no annotation to {purpose}."
    report.faults.append(f"{report.name}: {fault}")


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
    max_corrupt = share_of_corrupt(cfg)
    reports = []
    for split in ("train", "test") if training else ("test",):
        if split == "test" and "evaluator" not in cfg.dataloader:
            continue
        if split == "test":
            masks = masks and list(cfg.dataloader.evaluator.get("tasks") or ["segm"]) != ["bbox"]
        names = cfg.dataloader[split].dataset.names
        for name in [names] if isinstance(names, str) else names:
            report = _check_registered(
                name,
                training=split == "train",
                masks=masks,
                polygons=masks and mask_format == "polygon",
                max_corrupt=max_corrupt,
            )
            if report is not None:
                if split == "test":
                    _check_not_empty(report, "evaluate on")
                _check_class_count(report, cfg)
                reports.append(report)
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        raise UserError("the data set cannot be used:\n  " + "\n  ".join(faults))
    for report in reports:
        _log(report, max_detections(cfg))
    return reports


def _log(report: DatasetReport, limit: int) -> None:
    logger.info(f"Checked {report}.")
    for sentence in report.mended:
        logger.warning(f"{report.name}: {sentence.rstrip('.')}.")
    if report.skipped:
        logger.warning(f"{report.name}: {len(report.skipped)} images are left out ({', '.join(report.skipped[:3])}).")
    crowded = [count for count in report.objects.values() if count > limit]
    if crowded:
        logger.warning(
            f"{report.name}: {len(crowded)} images have more than {limit} objects, up to {max(crowded)}, but a "
            f"model detects at most {limit} in an image; set data.max_detections={max(crowded)}."
        )


def _check_registered(name: str, **options: Any) -> DatasetReport | None:
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
