"""What is wrong with images and label maps, found before the first iteration instead of in the middle of a run."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from omegaconf import DictConfig
from PIL import Image
from tabulate import tabulate

from convmae_seg.label_maps import IGNORED, check_same_size, read_label_map
from lazyrun.data.coco_check import upright_size
from lazyrun.data.corrupt import MAX_CORRUPT, CorruptImageError, share_of_corrupt
from pretrain.common.errors import UserError
from pretrain.common.images import check_depth, check_regular

__all__ = ["LabelMapReport", "check_datasets", "check_label_maps"]

logger = logging.getLogger(__name__)

SAMPLES = 1000
"""Pairs of a data set that are read; reading all of a large one would take minutes."""

THREADS = 8
SHOWN = 3
COLUMNS = 3


@dataclass
class LabelMapReport:
    """Counts of one data set, and its faults, each a plain sentence.

    Attributes:
        images: in the data set.
        checked: how many pairs were read.
        pixels: `(K + 1,)`, how many of each class, and of ignored ones.
        maps: `(K + 1,)`, how many label maps hold each class, and ignored pixels.
        skipped: sentences on images that are left out.
    """

    name: str
    class_names: list[str]
    images: int = 0
    checked: int = 0
    pixels: np.ndarray = field(init=False)
    maps: np.ndarray = field(init=False)
    faults: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pixels, self.maps = np.zeros((2, len(self.class_names) + 1), np.int64)

    def __str__(self) -> str:
        part = "" if self.checked == self.images else f", {self.checked} of them read"
        ignored = self.pixels[-1] / max(1, self.pixels.sum())
        head = f"{self.name}: {self.images} images with label maps{part}, {ignored:.1%} of the pixels ignored"
        total = max(1, self.pixels[:-1].sum())
        rows = [
            (name, f"{pixels / total:.2%}", maps)
            for name, pixels, maps in zip(self.class_names, self.pixels, self.maps, strict=False)
        ]
        lines = -(-len(rows) // COLUMNS)
        columns = [rows[i : i + lines] for i in range(0, len(rows), lines)]
        table = [[cell for column in columns if i < len(column) for cell in column[i]] for i in range(lines)]
        return f"{head}\n" + tabulate(
            table, headers=["class", "pixels", "label maps"] * len(columns), tablefmt="simple"
        )

    @property
    def absent(self) -> list[str]:
        """Classes without a pixel in what was read."""
        return [name for name, count in zip(self.class_names, self.pixels, strict=False) if not count]


def check_label_maps(name: str, samples: int = SAMPLES, max_corrupt: float = MAX_CORRUPT) -> LabelMapReport:
    """Checks one registered data set: sizes, labels and whether the files can be read.

    Args:
        samples: the most pairs to read, evenly spread over the data set.
        max_corrupt: share of the images that may be unreadable or of another size than their label map.

    Returns:
        counts and faults; it never raises for a fault of the data.
    """
    metadata = MetadataCatalog.get(name)
    report = LabelMapReport(name, list(metadata.stuff_classes))
    try:
        pairs = DatasetCatalog.get(name)
    except UserError as e:
        report.faults.append(str(e))
        return report
    read = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(samples, len(pairs))).round().astype(int)]
    report.images, report.checked = len(pairs), len(read)
    with ThreadPoolExecutor(THREADS) as threads:  # decoding leaves Python's lock
        results = list(threads.map(lambda pair: _check_pair(pair, metadata), read))
    corrupt = [result for result in results if isinstance(result, CorruptImageError)]
    if len(corrupt) <= max_corrupt * len(pairs):
        report.skipped = [str(e) for e in corrupt]
        results = [result for result in results if not isinstance(result, CorruptImageError)]
    faults = [str(result) for result in results if isinstance(result, UserError)]
    report.faults += faults[:SHOWN]
    if len(faults) > SHOWN:
        report.faults.append(f"… and {len(faults) - SHOWN} more of {len(read)} label maps that were read.")
    for counts in results:
        if not isinstance(counts, UserError):
            report.pixels += counts
            report.maps += counts > 0
    if not faults and not report.pixels[:-1].any():
        report.faults.append(f"{name}: no pixel has a class, all are ignored; is data.ignore_label the right one?")
    elif not faults and _objects_are_ignored(report, metadata):
        report.faults.append(
            f"{name}: the label maps hold 0 ({report.class_names[0]}) and 255 alone, and 255 is ignored: nothing could "
            f"be learnt of {', '.join(report.class_names[1:4])}. In masks of 0 and 255 write 1 in place of 255."
        )
    return report


def _objects_are_ignored(report: LabelMapReport, metadata: Metadata) -> bool:
    """Whether all is the first class or ignored: masks of black and white, whose white would not be trained on."""
    several = len(report.class_names) > 1 and not metadata.get("reduce_zero_label")
    return bool(several and report.pixels[-1] and not report.pixels[1:-1].any())


def _check_pair(pair: dict, metadata: Metadata) -> np.ndarray | UserError:
    """Pixels of each class and ignored ones, or what is wrong."""
    path, image = pair["sem_seg_file_name"], pair["file_name"]
    try:
        size = _size(image)
        classes = read_label_map(path, metadata)
    except UserError as e:
        return e
    try:
        check_same_size(path, classes.shape, image, size)
    except UserError as e:
        return CorruptImageError(str(e))
    counts = np.bincount(classes.ravel(), minlength=IGNORED + 1)
    return np.append(counts[: len(metadata.stuff_classes)], counts[IGNORED])


def _size(path: str) -> tuple[int, int]:
    """Height and width of an image turned upright, as it is read for training."""
    try:
        check_regular(path)
        with Image.open(path) as image:
            check_depth(image)
            width, height = upright_size(image)
            image.draft("RGB", (1, 1))  # JPEGs are decoded at an eighth: enough to find those that were cut off
            image.load()
            return height, width
    except Exception as e:  # Pillow raises a dozen types for damaged files
        raise CorruptImageError(f"{path} cannot be read as an image: {e}") from e


def check_datasets(cfg: DictConfig, *, training: bool = True) -> list[LabelMapReport]:
    """Checks the data sets that a run's loaders name, as far as they have label maps.

    Args:
        cfg: config of the run.
        training: check the training set too, not only the one for evaluation.

    Raises:
        UserError: with one line for each fault.
    """
    if cfg.model.get("ignore_label", IGNORED) != IGNORED:
        raise UserError(
            f"model.ignore_label={cfg.model.ignore_label}: label maps of any convention are read with {IGNORED} where "
            "nothing is to be learnt; leave it out, data.ignore_label says what the files hold."
        )
    reports = []
    for split in ("train", "test") if training else ("test",):
        if split == "test" and "evaluator" not in cfg.dataloader:
            continue
        names = cfg.dataloader[split].dataset.names
        if split == "test" and not isinstance(names, str):
            raise UserError(f"dataloader.test.dataset.names={names} must be one name: evaluate data sets one by one.")
        if split == "test" and (name := cfg.dataloader.evaluator.get("dataset_name", names)) != names:
            raise UserError(f"dataloader.evaluator.dataset_name={name} must be {names}, which dataloader.test loads.")
        for name in [names] if isinstance(names, str) else names:
            _check_registered(name)
            report = check_label_maps(name, max_corrupt=share_of_corrupt(cfg))
            _check_class_count(report, cfg)
            reports.append(report)
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        raise UserError("the data set cannot be used:\n  " + "\n  ".join(faults))
    for report in reports:
        logger.info(f"Checked {report}")
        for sentence in report.skipped:
            logger.warning(f"{sentence.rstrip('.')}: it is left out.")
        _warn_of_absent(report)
    return reports


def _check_registered(name: str) -> None:
    if name not in DatasetCatalog.list() or MetadataCatalog.get(name).get("evaluator_type") != "sem_seg":
        raise UserError(f"Data set {name!r} has no label maps that are registered here (datasets/README.md).")


def _check_class_count(report: LabelMapReport, cfg: DictConfig) -> None:
    count, classes = cfg.model.get("num_classes"), len(report.class_names)
    if count is not None and count != classes:
        report.faults.append(
            f"{report.name}: {classes} classes, but model.num_classes={count}; set model.num_classes={classes}."
        )


def _warn_of_absent(report: LabelMapReport) -> None:
    absent: Sequence[str] = report.absent
    if not absent:
        return
    shown = ", ".join(absent[:10]) + (", …" if len(absent) > 10 else "")
    logger.warning(f"{report.name}: {len(absent)} classes have no pixel in the label maps read: {shown}.")
    if MetadataCatalog.get(report.name).get("reduce_zero_label") and report.class_names[-1] in absent:
        logger.warning(
            f"{report.name}: the last class never occurs and label 0 is ignored; for labels that count from 0 choose "
            "data.ignore_label=255."
        )
