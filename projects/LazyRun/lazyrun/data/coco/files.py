"""Whether the image files of a data set are there, can be read, and have the annotated size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lazyrun.data.coco.findings import Findings
from lazyrun.data.inspection.facts import MISSING, ImageFacts

__all__ = ["bad_files", "judge_files"]

UNREADABLE = "image files that cannot be read"
TOO_DEEP = "image files of 32 bits a pixel, whose value range is undefined"
RESIZED = "image files of another size than annotated"
WAYS_OUT = {
    UNREADABLE: "replace them",
    TOO_DEEP: "save them with 8 or 16 bits",
    RESIZED: "annotate photos as they look upright",
}


def bad_files(images: Sequence[dict], facts: Mapping[str, ImageFacts]) -> list[tuple[str, str, str]]:
    """Images that training and evaluation leave out.

    Args:
        images: with `file_name`, `width` and `height`.
        facts: of each, by its file name.

    Returns:
        kind of fault, the file as sentences name it, and the reason, where the kind does not say it.
    """
    found = []
    for image in images:
        name, known = image["file_name"], facts[image["file_name"]]
        if known.fault == MISSING:
            continue
        if known.fault:
            found.append((TOO_DEEP, name, "") if known.too_deep else (UNREADABLE, name, known.fault))
        elif known.size != (image["width"], image["height"]):
            size = f"{known.width}x{known.height}, not {image['width']}x{image['height']}"
            found.append((RESIZED, f"{name} is {size}", ""))
    return found


def judge_files(
    images: Sequence[dict], facts: Mapping[str, ImageFacts], root: Path, max_corrupt: float
) -> tuple[Findings, Findings]:
    """Whether there are too many bad files.

    Args:
        images: with `file_name`, `width` and `height`.
        facts: of each, by its file name.
        root: folder that the names are relative to.
        max_corrupt: share of the files that may be unreadable or of another size.

    Returns:
        faults; and the files that will be left out, if they are few enough to be no fault.
    """
    faults, skipped = Findings(), Findings()
    missing = [i["file_name"] for i in images if facts[i["file_name"]].fault == MISSING]
    faults.add("image files missing", missing, f"they should be in {root}.")
    bad = bad_files(images, facts)
    allowed = f"data.max_corrupt={max_corrupt} allows to leave out {int(max_corrupt * len(images))} of {len(images)}."
    too_many = len(bad) > max_corrupt * len(images)
    for kind, way_out in WAYS_OUT.items():
        for of_kind, text, reason in bad:
            if of_kind == kind:
                remedy = f"{way_out}; {allowed}" if too_many else "left out of training and evaluation."
                (faults if too_many else skipped).note(kind, text, remedy, detail=reason)
    return faults, skipped
