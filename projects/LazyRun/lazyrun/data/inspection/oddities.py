"""What is odd about images and annotations, though training takes them: listed by kind, with files and ids."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping

from PIL import Image

from lazyrun.data.coco.findings import Findings
from lazyrun.data.inspection.facts import ImageFacts
from pretrain.common.images import IMAGE_SUFFIXES

__all__ = ["odd_images", "same_images", "unnamed_images"]

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of grey images of 16 bits; of those with 32 bits a pixel "I" is refused before."""

SAME_FORMAT = {"MPO": "JPEG"}


def odd_images(facts: Mapping[str, ImageFacts]) -> Findings:
    """Images that are read in a way that may surprise, by file name; those that cannot be read are left to others."""
    found = Findings()
    for name, image in facts.items():
        if image.fault:
            continue
        if image.orientation != 1:
            kind, remedy = "photos turned by their EXIF data", "read as they look upright."
            found.note(kind, name, remedy, detail=f"orientation {image.orientation}, {_size(image)} upright")
        if image.mode in SIXTEEN_BITS:
            found.note("grey images of 16 bits", name, "0…65535 becomes 0…255.", detail=_size(image))
        elif image.mode in ("1", "L", "LA"):
            found.note("grey images", name, "read as RGB with three equal channels.")
        elif image.mode not in ("RGB", "RGBA", "P", "PA"):
            found.note(f"images in {image.mode}", name, "converted to RGB.", detail=image.format)
        if image.transparent:
            found.note("images with transparency", name, "it is ignored: what it hides is seen.", detail=image.mode)
        if image.frames > 1:
            found.note("images of several frames", name, "the first alone is read.", detail=f"{image.frames} frames")
        _note_format(found, name, image.format)
    return found


def _size(image: ImageFacts) -> str:
    return f"{image.width}x{image.height}"


def _note_format(found: Findings, name: str, content: str) -> None:
    expected = Image.registered_extensions().get(_suffix(name))
    if SAME_FORMAT.get(content, content) != expected and expected is not None:
        found.note("files named after another format", name, "read by their content.", detail=f"it is {content}")


def same_images(sets: Mapping[str, Mapping[str, ImageFacts]]) -> Findings:
    """Files with the same bytes, within a set and across sets.

    Args:
        sets: facts by file name, by the name of the set, such as "training".
    """
    files: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, facts in sets.items():
        for name, image in facts.items():
            if image.digest:
                files[image.digest].append((split, name))
    found = Findings()
    for copies in files.values():
        if len(copies) < 2:
            continue
        if len({split for split, _ in copies}) > 1:
            text = " = ".join(f"{name} ({split})" for split, name in copies)
            kind = f"images that are in {' and '.join(sets)}"
            found.note(kind, text, "the evaluation then measures what was learnt by heart; keep one.")
        else:
            split = copies[0][0]
            found.note(f"images that are twice in {split}", " = ".join(n for _, n in copies), "the same bytes.")
    return found


def unnamed_images(files: Iterable[str]) -> Findings:
    """Image files that lie beside those of some sets, but are in none.

    Args:
        files: paths of the images of all sets.
    """
    known = {os.path.abspath(file) for file in files}
    found = Findings()
    for folder in sorted({os.path.dirname(file) for file in known}):
        try:
            entries = sorted(os.listdir(folder))
        except (OSError, ValueError):  # the images of this folder are missing, which is noted elsewhere
            continue
        for entry in entries:
            image = os.path.join(folder, entry)
            if image not in known and not entry.startswith(".") and _suffix(entry) in IMAGE_SUFFIXES:
                kind = "image files without an entry in the annotations"
                found.note(kind, image, "they are not used, not even as background.")
    return found


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
