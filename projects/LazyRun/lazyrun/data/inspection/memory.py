"""What was found in image files, kept between runs: a file is opened again only if it has changed."""

import hashlib
import json
import logging
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import PIL

from lazyrun.data.inspection.facts import ImageFacts, Version
from pretrain.common.cache_folder import cache_folder
from pretrain.common.files import replacing

__all__ = ["ImageMemory", "memory_folder"]

logger = logging.getLogger(__name__)

CONTENT = "facts of image files, version 1"
TYPES = {f.name: type(getattr(ImageFacts(), f.name)) for f in fields(ImageFacts)}


def memory_folder() -> Path | None:
    """Where it is kept by default: `LAZYRUN_CACHE`, else `lazyrun` in the user's cache folder; None without a home."""
    return cache_folder("LAZYRUN_CACHE", "lazyrun")


class ImageMemory:
    """The facts of the images in one folder. Whatever is wrong with the file that keeps them, images are opened anew.

    Args:
        root: folder of the images.
        folder: of the file; None keeps nothing.
    """

    def __init__(self, root: Path, folder: Path | None):
        self.root = os.path.abspath(root)
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        self.path = None if folder is None else folder / f"images-{name}.json"
        self._known = self._read()
        self._new: dict[str, tuple[Version, ImageFacts]] = {}

    def get(self, name: str, version: Version) -> ImageFacts | None:
        """What is known of this version of an image."""
        entry = _entry(self._known.get(name))
        return entry[1] if entry is not None and entry[0] == version else None

    def put(self, name: str, version: Version, facts: ImageFacts) -> None:
        """Remembers a version of an image, once :meth:`save` is called."""
        self._new[name] = (version, facts)

    def save(self) -> None:
        """Writes what is new; what another process has written meanwhile is kept. A failure is only logged."""
        if not self._new or self.path is None:
            return
        entries = {name: [*version, asdict(facts)] for name, (version, facts) in self._new.items()}
        self._known = self._read() | entries
        content = {"content": CONTENT, "pillow": PIL.__version__, "root": self.root, "images": self._known}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="ascii")
        except OSError as e:
            logger.info(f"The images will be opened again next time: {e}.")
            return
        self._new = {}

    def _read(self) -> dict[str, Any]:
        """The entries of the file by name, unchecked; none if it is missing, damaged or another's."""
        if self.path is None:
            return {}
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or not isinstance(content.get("images"), dict):
            return {}
        # Another version of Pillow may read what this one does not.
        expected = {"content": CONTENT, "pillow": PIL.__version__, "root": self.root}
        return content["images"] if expected.items() <= content.items() else {}


def _entry(value: Any) -> tuple[Version, ImageFacts] | None:
    """One image of the file; None if it is not what :meth:`ImageMemory.save` writes."""
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[2], dict):
        return None
    modified, size, facts = value
    if type(modified) is not int or type(size) is not int:
        return None
    if facts.keys() != TYPES.keys() or any(type(facts[key]) is not kind for key, kind in TYPES.items()):
        return None
    return (modified, size), ImageFacts(**facts)
