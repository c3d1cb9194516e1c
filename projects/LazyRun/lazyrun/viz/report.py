"""A report of an evaluation: pictures, charts and one HTML page that needs nothing else."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
from matplotlib.figure import Figure

from lazyrun.data.images import decode_image
from lazyrun.evaluation.analysis import Evaluation, ImageErrors, evaluate, find_errors
from lazyrun.viz.charts import TASKS, class_ap_chart, draw, precision_recall_chart
from lazyrun.viz.instances import draw_comparison, group_by_image
from lazyrun.viz.pages import data_uri, jpeg, write_page
from lazyrun.viz.pictures import encode_picture
from pretrain.common.errors import UserError
from pretrain.common.files import replacing

__all__ = ["write_report"]

logger = logging.getLogger(__name__)


def write_report(
    dataset: dict,
    results: Sequence[dict],
    images: Path,
    output: Path,
    *,
    title: str,
    count: int = 10,
    score_threshold: float = 0.5,
    max_detections: int | None = None,
) -> Path:
    """Writes `report.html`, its charts and the pictures of the worst images as PNG to a folder.

    Only the pictures shown are read and drawn, one at a time.

    Args:
        dataset: a COCO annotation file.
        results: detections of a COCO results file, with or without masks.
        images: folder that the data set's file names are relative to.
        output: folder to write to.
        title: of the page.
        count: images to show, worst first by F1 at IoU 0.5.
        score_threshold: least score of a detection that is drawn or counted as false.
        max_detections: detections that count in an image; by default 100, or all of an image that has more.

    Returns:
        the page.

    Raises:
        UserError: an image to be shown is missing or cannot be read.
    """
    output.mkdir(parents=True, exist_ok=True)
    masks = any(r.get("segmentation") for r in results) and any(a.get("segmentation") for a in dataset["annotations"])
    tasks = ("bbox", "segm") if masks else ("bbox",)
    evaluations = [evaluate(dataset, results, task, max_detections) for task in tasks]
    errors = find_errors(dataset, results, score_threshold, max_detections)
    pictures = _draw_pictures(dataset, results, images, output, errors[:count], score_threshold)
    charts = _draw_charts(evaluations, output)
    path = output / "report.html"
    write_page(
        path,
        "report.html",
        title=title,
        images=len(dataset["images"]),
        objects=sum(not a.get("iscrowd") for a in dataset["annotations"]),
        classes=len(dataset["categories"]),
        detections=len(results),
        kept=sum(r["score"] >= score_threshold for r in results),
        threshold=score_threshold,
        summary=[{"name": TASKS[e.task], "values": [_figure(v) for v in e.summary.values()]} for e in evaluations],
        class_chart=charts[0],
        curve_charts=charts[1:],
        pictures=pictures,
        filter_classes=sorted({name for p in pictures for name in p["classes"]}),
    )
    return path


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _draw_charts(evaluations: Sequence[Evaluation], output: Path) -> list[dict[str, bytes]]:
    """The class chart and one of curves for each task, by theme; the light ones are written as files too."""
    charts: dict[str, tuple[Callable[..., Figure], Any]] = {"class_ap": (class_ap_chart, evaluations)}
    charts |= {f"precision_recall_{e.task}": (precision_recall_chart, e) for e in evaluations}
    drawn: list[dict[str, bytes]] = []
    for name, (chart, argument) in charts.items():
        names = evaluations[0].class_count
        drawn.append({theme: draw(chart, argument, names=names, theme=theme) for theme in ("light", "dark")})
        with replacing(output / f"{name}.png") as temporary:
            temporary.write_bytes(drawn[-1]["light"])
    return drawn


def _draw_pictures(
    dataset: dict, results: Sequence[dict], folder: Path, output: Path, errors: Sequence[ImageErrors], threshold: float
) -> list[dict]:
    """What the page shows of each image; the full pictures are written as PNG, named by rank."""
    names = {c["id"]: c["name"] for c in dataset["categories"]}
    shown = {e.image_id for e in errors}
    files = {i["id"]: i["file_name"] for i in dataset["images"] if i["id"] in shown}
    truth = group_by_image([a for a in dataset["annotations"] if a["image_id"] in shown])
    found = group_by_image([r for r in results if r["image_id"] in shown and r["score"] >= threshold])
    pictures = []
    for rank, image in enumerate(errors, start=1):
        file_name = files[image.image_id]
        try:
            pixels = decode_image(folder / file_name, "RGB")
        except Exception as e:  # Pillow raises a dozen types for damaged files
            raise UserError(f"Image {folder / file_name} is missing or cannot be read: {e}") from e
        objects, detections = truth[image.image_id], found[image.image_id]
        picture = draw_comparison(
            pixels,
            _noted(objects, image.missed, "missed"),
            _noted(detections, image.false, "false"),
            names,
        )
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        with replacing(output / f"worst_{rank:03d}_{Path(file_name).stem}.png") as temporary:
            temporary.write_bytes(encode_picture(".png", picture))
        pictures.append(
            {
                "name": file_name,
                "f1": image.f1,
                "hits": image.hits,
                "missed": len(image.missed),
                "false": len(image.false),
                "classes": sorted({names[a["category_id"]] for a in [*objects, *detections]}),
                "image": data_uri(jpeg(picture), "image/jpeg"),
            }
        )
    return pictures


def _noted(annotations: Sequence[dict], chosen: Sequence[dict], note: str) -> list[dict]:
    """The annotations, with a note on those chosen."""
    ids = {id(a) for a in chosen}
    return [{**a, "note": note} if id(a) in ids else a for a in annotations]
