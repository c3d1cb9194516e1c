"""Opens all images of a set, in parallel and with progress; those that are remembered are not opened again."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from lazyrun.data.inspection import WORKERS
from lazyrun.data.inspection.facts import ImageFacts, Version, inspect_image, version_of
from lazyrun.data.inspection.memory import ImageMemory, memory_folder

__all__ = ["inspect_images"]

logger = logging.getLogger(__name__)

CHUNK = 256
"""Files whose versions a thread asks for at a time."""

SAVE_SECONDS = 60
"""How often the memory is written while images are opened, so that little is lost with a run that is killed."""

LOG_SECONDS = 15
"""How often a log without a terminal hears of the progress."""


def inspect_images(names: Sequence[str], root: Path, *, workers: int = WORKERS) -> dict[str, ImageFacts]:
    """The facts of images, from the user's memory (:mod:`lazyrun.data.inspection.memory`) or by opening them.

    Args:
        names: of the files, relative to `root`.
        root: folder of the images.
        workers: threads, at least 1.

    Returns:
        facts by name; files that are missing have a fault.
    """
    names = list(dict.fromkeys(names))
    store = ImageMemory(root, memory_folder())
    facts: dict[str, ImageFacts] = {}
    pool = ThreadPoolExecutor(workers)
    try:
        chunks = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
        versions = chain.from_iterable(pool.map(lambda chunk: [version_of(root / name) for name in chunk], chunks))
        for name, version in zip(names, versions, strict=True):
            known = store.get(name, version) if version is not None else None
            if known is not None:
                facts[name] = known
        unknown = [name for name in names if name not in facts]
        saved = time.monotonic()
        for name, (found, version) in _progress(_inspected(pool, unknown, root), len(unknown)):
            facts[name] = found
            if version is not None:
                store.put(name, version, found)
            if time.monotonic() - saved > SAVE_SECONDS:
                store.save()
                saved = time.monotonic()
    finally:
        pool.shutdown(cancel_futures=True)  # of a run that is stopped, images that wait are not opened any more
        store.save()
    return facts


Found = tuple[str, tuple[ImageFacts, Version | None]]


def _inspected(pool: ThreadPoolExecutor, names: Sequence[str], root: Path) -> Iterable[Found]:
    return zip(names, pool.map(lambda name: inspect_image(root / name), names), strict=True)


def _progress(results: Iterable[Found], total: int) -> Iterator[Found]:
    """The results, with a bar on a terminal and lines in a log."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    started = logged = time.monotonic()
    with tqdm(total=total, desc="opening images", unit="image", dynamic_ncols=True, disable=not shown) as bar:
        for count, result in enumerate(results, start=1):
            yield result
            bar.update()
            now = time.monotonic()
            if not shown and now - logged > LOG_SECONDS:
                logged = now
                logger.info(f"Opened {count} of {total} images ({now - started:.0f} s).")
