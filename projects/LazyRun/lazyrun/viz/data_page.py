"""The page that a look at data ends in: a verdict, a table, everything odd, and pictures."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lazyrun.data.coco.findings import Finding, Findings
from lazyrun.data.corrupt import CorruptImageError
from lazyrun.data.images import read_image
from lazyrun.data.inspection.look import Look, SetLook
from lazyrun.data.inspection.objects import WAYS_OUT, ObjectCase, extreme_objects
from lazyrun.data.inspection.table import class_rows, rows, shortened
from lazyrun.viz.charts import draw
from lazyrun.viz.data_charts import class_chart, image_chart, object_chart
from lazyrun.viz.instances import group_by_image
from lazyrun.viz.pages import data_uri, jpeg, write_page
from lazyrun.viz.windows import draw_window, window_around

__all__ = ["write_data_page"]

logger = logging.getLogger(__name__)

WORST = 4
"""Pictures of each kind of oddity."""

SIDE = 480
"""Longer side of a picture in pixels."""

NAME_LENGTH = 24
"""Most characters of a class name in a picture."""

MOST_LABELS = 20
"""Objects of a picture beyond which the names of classes would hide it."""


def write_data_page(look: Look, path: Path, *, title: str, count: int = 12) -> None:
    """Writes the page.

    Args:
        look: what was found.
        path: of the page.
        title: of the page.
        count: samples drawn of each set.

    Raises:
        OSError: it cannot be written.
    """
    figures = {name: f for name, f in look.figures.items() if len(f.image_sizes)}
    charts: dict[str, Any] = {}
    for theme in ("light", "dark") if figures else ():
        charts.setdefault("classes", {})[theme] = draw(class_chart, figures, theme=theme)
        charts.setdefault("objects", {})[theme] = draw(object_chart, figures, look.model, theme=theme)
        charts.setdefault("images", {})[theme] = draw(image_chart, figures, look.model, theme=theme)
    sets = [_described(name, s) for name, s in look.sets.items()]
    write_page(
        path,
        "data.html",
        title=title,
        refusals=look.refusals,
        sets=sets,
        odd=bool(look.shared) or any(entries for s in sets for _, _, entries in s["groups"]),
        names=list(figures),
        rows=rows(figures, look.model),
        class_rows=class_rows(figures),
        shared=_listed(look.shared),
        charts=charts,
        model=look.model,
        samples=[(name, _samples(look.sets[name], count)) for name in figures],
        offenders=[(name, _offenders(look.sets[name])) for name in figures],
    )


def _described(name: str, look: SetLook) -> dict:
    source = look.source
    notes = [] if source.json_file is not None else source.notes  # of COCO JSON the same as what was mended
    return {
        "name": name,
        "path": source.path,
        "format": source.format,
        "root": source.root,
        "notes": notes,
        "groups": [
            ("refused for", "bad", _listed(look.faults)),
            ("changed or left out", "", _listed(look.mended)),
            ("taken as it is", "", _listed(look.odd)),
        ],
    }


def _listed(findings: Findings) -> list[dict]:
    return [_entry(finding) for finding in findings]


def _entry(finding: Finding) -> dict:
    return {
        "title": f"{finding.count} {finding.kind}" if finding.count else finding.kind,
        "way_out": finding.way_out,
        "cases": "\n".join(" ".join(case.split()) for case in finding.cases),
        "more": finding.count - len(finding.cases),
    }


def _samples(look: SetLook, count: int) -> list[dict]:
    """Pictures of some images: one of each of the rarest classes, the others evenly spread."""
    images = [i for i in look.content.images if _is_readable(look, i)]
    chosen = _one_of_each_class(look, images)[: count // 2]
    known = {i["id"] for i in chosen}
    others = [i for i in images if i["id"] not in known]
    places = np.linspace(0, len(others) - 1, min(len(others), count - len(chosen))).round().astype(int)
    chosen += [others[n] for n in dict.fromkeys(places.tolist())]
    order = {image["id"]: n for n, image in enumerate(images)}
    cases = [ObjectCase(i, (), "", 0) for i in sorted(chosen, key=lambda i: order[i["id"]])]
    return _pictures(look, cases)


def _is_readable(look: SetLook, image: dict) -> bool:
    facts = look.report.facts[image["file_name"]]
    return not facts.fault and facts.size == (image["width"], image["height"])


def _one_of_each_class(look: SetLook, images: Sequence[dict]) -> list[dict]:
    """For each class, the rarest first, an image with it; none twice."""
    by_id = {i["id"]: i for i in images}
    holding: dict[int, list[int]] = {c["id"]: [] for c in look.content.categories}
    for annotation in look.content.annotations:
        if annotation["image_id"] in by_id:
            holding[annotation["category_id"]].append(annotation["image_id"])
    chosen: dict[int, dict] = {}
    for ids in sorted(holding.values(), key=len):
        fresh = next((i for i in ids if i not in chosen), None)
        if fresh is not None:
            chosen[fresh] = by_id[fresh]
    return list(chosen.values())


def _offenders(look: SetLook) -> list[dict]:
    """The worst of each kind of oddity, and the extremes, odd or not."""
    images = [i for i in look.content.images if _is_readable(look, i)]
    ids = {i["id"] for i in images}
    annotations = [a for a in look.content.annotations if a["image_id"] in ids]
    kinds = {
        f"{len(cases)} {kind}": (WAYS_OUT[kind], [c for c in cases if c.image["id"] in ids][:WORST])
        for kind, cases in look.cases.items()
    }
    extremes = extreme_objects(images, annotations, WORST)
    kinds |= {kind.capitalize(): ("", cases) for kind, cases in extremes.items()}
    return [
        {"title": title, "way_out": way_out, "pictures": _pictures(look, cases)}
        for title, (way_out, cases) in kinds.items()
        if cases
    ]


def _pictures(look: SetLook, cases: Iterable[ObjectCase]) -> list[dict]:
    """A picture of each case, with all objects around it; the odd ones are labelled with their ids."""
    names = {c["id"]: shortened(c["name"], NAME_LENGTH) for c in look.content.categories}
    cases = list(cases)
    shown = {c.image["id"] for c in cases}
    objects = group_by_image([a for a in look.content.annotations if a["image_id"] in shown])
    pictures = []
    for case in cases:
        file = case.image["file_name"]
        try:
            image = read_image(look.source.root / file, "RGB")
        except CorruptImageError as e:  # since it was remembered, or the cheaper check missed it
            logger.warning(f"{e}: it is not shown.")
            continue
        boxes = [a["bbox"] for a in case.annotations]
        window = window_around(boxes, image.shape[1], image.shape[0])
        picture = draw_window(image, _marked(objects[case.image["id"]], case, len(names)), names, window, SIDE)
        count = sum(not a.get("iscrowd") for a in objects[case.image["id"]])
        ids = " and ".join(str(a["id"]) for a in case.annotations)
        caption = [f"annotation {ids}"] if ids else []
        caption.append(case.text or f"{case.image['width']}x{case.image['height']}, {count} objects")
        content = jpeg(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        pictures.append({"name": file, "caption": caption, "image": data_uri(content, "image/jpeg")})
    return pictures


def _marked(annotations: Sequence[dict], case: ObjectCase, classes: int) -> list[dict]:
    """The annotations with their labels: the odd ones with their ids, the others by class if that tells anything."""
    ids = {a["id"] for a in case.annotations}
    few = len(annotations) <= MOST_LABELS and classes > 1
    marked = []
    for annotation in annotations:
        if annotation["id"] in ids:
            marked.append(annotation | {"note": f"#{annotation['id']}"})
        elif annotation.get("iscrowd"):
            marked.append(annotation | {"note": "crowd"})
        else:
            marked.append(annotation if few and not ids else annotation | {"label": ""})
    return marked
