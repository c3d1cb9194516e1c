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
from lazyrun.data.coco.files import judge_files
from lazyrun.data.coco.findings import Findings
from lazyrun.data.coco.reading import read_coco_json
from lazyrun.data.corrupt import MAX_CORRUPT, share_of_corrupt
from lazyrun.data.detections import max_detections
from lazyrun.data.inspection import WORKERS
from lazyrun.data.inspection.facts import ImageFacts, upright_size
from lazyrun.data.inspection.figures import SetFigures, set_figures
from lazyrun.data.inspection.images import inspect_images
from lazyrun.data.inspection.model_input import model_input
from lazyrun.data.inspection.table import text_table
from pretrain.common.errors import UserError

__all__ = [
    "DatasetReport",
    "check_coco_json",
    "check_content",
    "check_datasets",
    "check_not_empty",
    "read_coco_json",
    "upright_size",
]

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
        found: the faults, for which training or evaluation is refused.
        mended: what was changed or left out, one sentence for each kind.
        skipped: image files that are left out, with the reason.
        objects: in each image that has some, by image id, crowds not counted.
        facts: of the image files by name, if they were opened.
        figures: of the set, if its images were opened.
    """

    name: str
    images: int = 0
    annotations: int = 0
    categories: int = 0
    empty_images: int = 0
    degenerate_boxes: int = 0
    found: Findings = field(default_factory=Findings)
    mended: list[str] = field(default_factory=list)
    skipped: Findings = field(default_factory=Findings)
    objects: Counter = field(default_factory=Counter)
    facts: dict[str, ImageFacts] = field(default_factory=dict)
    figures: SetFigures | None = None

    @property
    def faults(self) -> list[str]:
        """One sentence for each kind of fault, with the name of the set."""
        return [f"{self.name}: {sentence}" for sentence in self.found.sentences()]

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
    options: dict[str, Any] = dict(training=training, masks=masks, polygons=polygons, max_corrupt=max_corrupt)
    return check_content(name, content, json_file, Path(image_root), **options)


def check_content(
    name: str,
    content: CocoContent,
    source: object,
    image_root: Path,
    *,
    training: bool,
    masks: bool,
    polygons: bool = False,
    max_corrupt: float = MAX_CORRUPT,
    workers: int = WORKERS,
) -> DatasetReport:
    """Checks a data set that was read; every image is opened that is not remembered.

    Args:
        content: the set.
        source: where it is from, for messages.
        workers: threads that open images.
        name, image_root, training, masks, polygons, max_corrupt: as for :func:`check_coco_json`.
    """
    report = DatasetReport(name)
    _count(report, content)
    if not report.images:
        report.found.say(f"{source} lists no images; check that it is the right file.")
        return report
    report.found.update(content.faults)
    if report.found:
        return report
    report.found.update(content.doubts)
    report.facts = inspect_images([i["file_name"] for i in content.images], image_root, workers=workers)
    faults, report.skipped = judge_files(content.images, report.facts, image_root, max_corrupt)
    report.found.update(faults)
    _check_objects(report, content, masks=masks, polygons=training and polygons)
    if training:
        check_not_empty(report, "train on")
    lists = content.images, content.annotations, content.categories
    report.figures = set_figures(*lists, report.facts, content.without_area)
    return report


def _read(report: DatasetReport, json_file: Path, image_root: Path) -> CocoContent | None:
    """What a COCO file holds; None after noting why it cannot be read."""
    if not json_file.is_file():
        report.found.say(
            f"annotation file {json_file} does not exist; put the data there or set DETECTRON2_DATASETS to the folder "
            "that holds it (datasets/README.md)."
        )
    elif not image_root.is_dir():
        report.found.say(f"image folder {image_root} does not exist (datasets/README.md).")
    else:
        try:
            return load(json_file)
        except ValueError as e:
            report.found.say(f"{json_file} {e}.")
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
    files = {i["id"]: i["file_name"] for i in content.images}
    for annotation in content.annotations:
        mask, file = annotation.get("segmentation"), files[annotation["image_id"]]
        if masks and report.objects and not mask:
            kind = "annotations without segmentation under a mask head"
            report.found.note(kind, annotation["id"], WITHOUT_MASKS, file=file)
        if polygons and isinstance(mask, dict) and not annotation.get("iscrowd"):
            way_out = "read masks as bitmaps with dataloader.train.mapper.instance_mask_format=bitmask."
            report.found.note("single objects with run-length masks", annotation["id"], way_out, file=file)


def check_not_empty(report: DatasetReport, purpose: str) -> None:
    """Notes a fault if no object is left to `purpose`."""
    if report.found or report.objects:
        return
    if report.degenerate_boxes and report.degenerate_boxes == report.annotations:
        fault = f"none of its {report.annotations} boxes has an area; {BOX}"
    elif report.annotations:
        fault = f"all annotations are crowds (iscrowd), which training leaves out: there is none to {purpose}."
    else:
        fault = f"there is no annotation to {purpose}."
    report.found.say(fault)


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
    reports: list[DatasetReport] = []
    figures: dict[str, SetFigures] = {}
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
            if report is None:
                continue
            if split == "test":
                check_not_empty(report, "evaluate on")
            _check_class_count(report, cfg)
            reports.append(report)
            if report.figures is not None:
                kind = "training" if split == "train" else "evaluation"
                figures[f"{kind}: {name}" if kind in figures else kind] = report.figures
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        raise UserError("the data set cannot be used:\n  " + "\n  ".join(faults))
    for report in reports:
        _log(report, max_detections(cfg))
    if figures:
        logger.info("The data in figures:\n" + text_table(figures, model_input(cfg)))
    return reports


def _log(report: DatasetReport, limit: int) -> None:
    logger.info(f"Checked {report}.")
    for sentence in report.mended:
        logger.warning(f"{report.name}: {sentence.rstrip('.')}.")
    for sentence in report.skipped.sentences():
        logger.warning(f"{report.name}: {sentence}")
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
        report.found.say(
            f"{report.categories} categories, but model.roi_heads.num_classes={heads}; "
            f"set model.roi_heads.num_classes={report.categories}."
        )
