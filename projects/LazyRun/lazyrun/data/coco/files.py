"""Whether the image files of a data set are there, can be read, and have the annotated size."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import ExifTags, Image

from lazyrun.data.coco.findings import Findings
from lazyrun.data.images import is_file
from pretrain.common.errors import UserError
from pretrain.common.images import check_depth, check_regular

__all__ = ["check_files", "upright_size"]

SAMPLES = 256
"""Image files that are opened, evenly spread over the data set; opening all of a large one would take minutes."""

SURELY = 4
"""So many bad files among those opened are no accident: the whole set has more than are allowed."""

THREADS = 8

ON_THEIR_SIDE = (5, 6, 7, 8)
"""EXIF orientations of images whose width and height change places."""

UNREADABLE = "image files that cannot be read"
TOO_DEEP = "image files of 32 bits a pixel, whose value range is undefined"
RESIZED = "image files of another size than annotated"
WAYS_OUT = {
    UNREADABLE: "replace them",
    TOO_DEEP: "save them with 8 or 16 bits",
    RESIZED: "annotate photos as they look upright",
}


def check_files(images: list[dict], root: Path, max_corrupt: float) -> tuple[Findings, list[str]]:
    """Looks for all files, and opens some of them.

    Args:
        images: with `file_name`, `width` and `height`.
        root: folder that the names are relative to.
        max_corrupt: share of the files that may be unreadable or of another size.

    Returns:
        faults; and the files that will be left out, if they are few enough to be no fault.
    """
    faults = Findings()
    present = set(os.listdir(root))  # one listing instead of a look-up for each of 118 000 files
    missing = [i["file_name"] for i in images if i["file_name"] not in present and not is_file(root / i["file_name"])]
    faults.add("image files missing", missing, f"they should be in {root}.")
    if missing:
        return faults, []
    opened = images[:: max(1, -(-len(images) // SAMPLES))]
    with ThreadPoolExecutor(THREADS) as threads:  # decoding leaves Python's lock
        bad = [r for r in threads.map(lambda image: _check_file(image, root), opened) if r is not None]
    surely = len(bad) >= SURELY and len(bad) > SURELY * max_corrupt * len(opened)
    if len(bad) <= max_corrupt * len(images) and not surely:
        return faults, [text for _, text in bad]
    allowed = f"data.max_corrupt={max_corrupt} allows to leave out {int(max_corrupt * len(images))} of {len(images)}."
    for kind, way_out in WAYS_OUT.items():
        faults.add(kind, [text for k, text in bad if k == kind], f"{way_out}; {allowed}")
    return faults, []


def _check_file(image: dict, root: Path) -> tuple[str, str] | None:
    """Kind of fault, and the file with details, of an image file that cannot be used."""
    name = image["file_name"]
    try:
        check_regular(root / name)
        with Image.open(root / name) as file:
            size = upright_size(file)
            check_depth(file)
            file.draft("RGB", (1, 1))  # JPEGs are decoded at an eighth: enough to find those that were cut off
            file.load()
    except UserError:
        return TOO_DEEP, name
    except Exception:  # Pillow raises a dozen types for damaged files
        return UNREADABLE, name
    if size != (image["width"], image["height"]):
        return RESIZED, f"{name} is {size[0]}x{size[1]}, not {image['width']}x{image['height']}"
    return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a photo turned as its EXIF data say, as detectron2 reads it; nothing is decoded."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in ON_THEIR_SIDE
    except Exception:  # damaged EXIF data raise many types, and then detectron2 does not turn the image
        turned = False
    return image.size[::-1] if turned else image.size
