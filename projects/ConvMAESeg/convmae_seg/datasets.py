"""Data sets of images and label maps: ADE20K, the generated shapes, and any pair of folders."""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES

from convmae_seg.colors import class_colors
from convmae_seg.label_maps import IGNORED, LABEL_SUFFIXES
from pretrain.common.errors import UserError
from pretrain.common.images import IMAGE_SUFFIXES

__all__ = [
    "ADE20K_CLASSES",
    "SHAPES_CLASSES",
    "find_pairs",
    "register_ade20k",
    "register_label_maps",
    "register_shapes",
]

ADE20K_CLASSES = [names.split(",")[0].strip() for names in ADE20K_SEM_SEG_CATEGORIES]
"""The 150 classes of the scene parsing benchmark in its order; of several names of a class, the first."""

SHAPES_CLASSES = ["background", "circle", "square", "triangle", "star"]

ADE20K_WAY_OUT = (
    "download http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip, unzip it and set "
    "DETECTRON2_DATASETS to the folder that holds ADEChallengeData2016 (datasets/README.md)"
)
SHAPES_WAY_OUT = "draw the data set with datasets/make_shapes.py (datasets/README.md)"


def find_pairs(image_root: str | os.PathLike, label_root: str | os.PathLike, way_out: str = "check the path") -> list:
    """The images of a folder, and of those below it, with their label maps: files of the same name but for the suffix.

    Args:
        image_root: folder of the images.
        label_root: folder of the label maps, laid out as that of the images.
        way_out: ends the message about a folder that is not there.

    Returns:
        detectron2's dicts in the order of the names: `file_name`, `sem_seg_file_name`, `image_id`.

    Raises:
        UserError: a folder is missing or empty, or some file has no partner or several.
    """
    for what, root in (("Image", image_root), ("Label", label_root)):
        if not Path(root).is_dir():
            raise UserError(f"{what} folder {root} does not exist; {way_out}.")
    images = _by_name(image_root, IMAGE_SUFFIXES)
    labels = _by_name(label_root, LABEL_SUFFIXES)
    if not images:
        raise UserError(f"Image folder {image_root} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    if not labels:
        raise UserError(f"Label folder {label_root} holds no label maps ({', '.join(LABEL_SUFFIXES)}).")
    _check_complete(images, labels, image_root, label_root)
    return [
        {"file_name": str(images[name]), "sem_seg_file_name": str(labels[name]), "image_id": name}
        for name in sorted(images)
    ]


def _by_name(root: str | os.PathLike, suffixes: Collection[str]) -> dict[str, Path]:
    """Files below a folder by their relative path without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(Path(root).rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in found:
            raise UserError(
                f"{found[name]} and {path} have the same name but for the suffix: which belongs to its partner is "
                "unclear; keep images and label maps in folders of their own, one file for each."
            )
        found[name] = path
    return found


def _check_complete(images: dict, labels: dict, image_root: object, label_root: object) -> None:
    for what, lone, other in (
        ("images have no label map", sorted(images.keys() - labels.keys()), label_root),
        ("label maps have no image", sorted(labels.keys() - images.keys()), image_root),
    ):
        if lone:
            files = images if other is label_root else labels
            shown = ", ".join(str(files[name]) for name in lone[:3]) + (", …" if len(lone) > 3 else "")
            raise UserError(
                f"{len(lone)} {what} of the same name in {other} ({shown}); add what is missing, or move them away."
            )


def register_label_maps(
    name: str,
    image_root: str | os.PathLike,
    label_root: str | os.PathLike,
    classes: Sequence[str],
    *,
    reduce_zero_label: bool,
    way_out: str = "check the path",
) -> None:
    """Registers a data set with detectron2, in place of one of the same name. The folders are read when it is used.

    Args:
        classes: names by class index.
        reduce_zero_label: on disk 1…K are the classes and 0 is ignored; else 0…K-1 are, and 255 is ignored.
        way_out: what to do if a folder is not there.
    """
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, _reader(image_root, label_root, way_out))
    MetadataCatalog.get(name).set(
        stuff_classes=list(classes),
        stuff_colors=class_colors(len(classes)),
        image_root=str(image_root),
        sem_seg_root=str(label_root),
        ignore_label=IGNORED,
        reduce_zero_label=reduce_zero_label,
        evaluator_type="sem_seg",
    )


def _reader(image_root: str | os.PathLike, label_root: str | os.PathLike, way_out: str) -> Callable[[], list]:
    return lambda: find_pairs(image_root, label_root, way_out)


def register_ade20k(root: str | os.PathLike) -> None:
    """Registers `ade20k_sem_seg_{train,val}` as the benchmark's archive unpacks to `<root>/ADEChallengeData2016`.

    detectron2 registers the same names for label maps that a script of its own wrote to another folder before.
    """
    folder = Path(root) / "ADEChallengeData2016"
    for split, directory in (("train", "training"), ("val", "validation")):
        register_label_maps(
            f"ade20k_sem_seg_{split}",
            folder / "images" / directory,
            folder / "annotations" / directory,
            ADE20K_CLASSES,
            reduce_zero_label=True,
            way_out=ADE20K_WAY_OUT,
        )


def register_shapes(root: str | os.PathLike) -> None:
    """Registers `shapes_sem_seg_{train,val}`, as `datasets/make_shapes.py` writes them to `<root>/shapes`."""
    folder = Path(root) / "shapes"
    for split in ("train", "val"):
        register_label_maps(
            f"shapes_sem_seg_{split}",
            folder / split,
            folder / "labels" / split,
            SHAPES_CLASSES,
            reduce_zero_label=False,
            way_out=SHAPES_WAY_OUT,
        )


def register_all(root: str | os.PathLike) -> None:
    register_ade20k(root)
    register_shapes(root)


register_all(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))
