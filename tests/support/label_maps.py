"""Small data sets of images and label maps."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ["ground", "tree", "sky"]


def write_pairs(root: Path, count: int = 3, first: int = 0, size: tuple[int, int] = (40, 60)) -> list[str]:
    """Writes `count` pairs of three classes, labels counted from `first`; returns the options of a training set.

    Each label map holds all classes in bands, and a row of the value that is ignored.
    """
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        labels = np.repeat(np.arange(3), -(-size[0] // 3))[: size[0], None] + first
        labels = np.broadcast_to(labels, size).astype(np.uint8).copy()
        labels[0] = 0 if first else 255
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(root / "images" / f"{i}.jpg")
        Image.fromarray(labels).save(root / "labels" / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return [
        f"data.train_images={root / 'images'}",
        f"data.train_labels={root / 'labels'}",
        f"data.class_names={root / 'classes.txt'}",
        f"data.ignore_label={0 if first else 255}",
    ]
