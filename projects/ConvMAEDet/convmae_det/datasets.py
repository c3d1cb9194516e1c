"""Data sets that the project's configs name besides detectron2's built-in ones."""

import os
from pathlib import Path

from detectron2.data import DatasetCatalog

from lazyrun.data.coco.records import register_coco

__all__ = ["register_shapes"]


def register_shapes(root: str | os.PathLike) -> None:
    """Registers `shapes_train` and `shapes_val`, as `datasets/make_shapes.py` writes them to `<root>/shapes`."""
    folder = Path(root) / "shapes"
    for split in ("train", "val"):
        name = f"shapes_{split}"
        if name not in DatasetCatalog.list():
            register_coco(name, str(folder / "annotations" / f"instances_{split}.json"), str(folder / split))


register_shapes(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))
