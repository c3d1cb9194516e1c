"""The annotated sets that the options `data.…` of a detector name: read, split, and with classes that match."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig, ListConfig

from lazyrun.data.categories import stored_categories
from lazyrun.data.coco.content import load
from lazyrun.data.formats import AnnotatedSet, read_dataset
from lazyrun.data.splits import choose_classes, match_classes, select_categories, split_by_name, write_coco
from pretrain.common.errors import UserError

__all__ = ["DATA_OPTIONS", "json_file_of", "names_data", "read_sets", "temporary_cache"]

DATA_OPTIONS = (
    *("train", "val", "val_fraction", "classes", "cache"),
    *("train_json", "train_images", "val_json", "val_images"),
)
"""Keys of a detector's `data` node.

`train` and `val` name annotated images in any format of :mod:`lazyrun.data.formats`, `val_fraction` takes the second
from the first, `classes` selects and orders, and `cache` is the folder for what is converted (`data` in the output
folder by default). `train_json` and its companions name COCO annotation files and image folders.
"""


def names_data(data: DictConfig) -> bool:
    """Whether a `data` node names any set of images."""
    return any(data[key] for key in DATA_OPTIONS if key not in ("classes", "cache"))


def read_sets(
    cfg: DictConfig, *, training: bool, refuse: bool = True
) -> tuple[AnnotatedSet | None, AnnotatedSet | None]:
    """Reads the sets that `cfg.data` names for training and for evaluation.

    Classes are those of the training set. For an evaluation without one they are those that the checkpoint knows.

    Args:
        cfg: paths in its `data` become absolute.
        training: the training set is needed; for an evaluation it may be missing.
        refuse: raise for faults of single files and objects too, rather than return the sets with their faults.

    Raises:
        UserError: options do not fit together, a file is missing or cannot be read, or the evaluation set has a class
            that training does not have.
    """
    data = cfg.data
    _check_options(data)
    needed = training or data.val_fraction is not None
    train, val = (_read(data, split, required=split == "val" or needed, refuse=refuse) for split in ("train", "val"))
    if training and not train:
        given = "data.val" if data.val else "data.val_json"
        raise UserError(f"{given} without data.train{given[8:]}: training would take the config's own data; name both.")
    if any(found and found.faults for found in (train, val)):
        return train, val
    if data.val_fraction is not None:
        assert train is not None, "checked above"
        train, val = split_by_name(train, data.val_fraction)
    names = _class_names(data)
    if train and names:
        train = choose_classes(train, names)
    if train and val:
        val = (
            select_categories(val, train.categories) if names else match_classes(val, train.categories, str(train.path))
        )
    elif val:
        val = _as_trained(choose_classes(val, names) if names else val, cfg.train.init_checkpoint)
    return train, val


def _check_options(data: DictConfig) -> None:
    for split in ("train", "val"):
        if data[split] and (data[f"{split}_json"] or data[f"{split}_images"]):
            raise UserError(
                f"data.{split} and data.{split}_json or data.{split}_images: name one of them, and set the others to "
                "null."
            )
        if data[split] is not None and not isinstance(data[split], str):
            raise UserError(f"data.{split}={data[split]} is no path; name one file or folder.")
    fraction = data.val_fraction
    if fraction is None:
        return
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise UserError(f"data.val_fraction={fraction} must be a number between 0 and 1, such as 0.2.")
    if data.val or data.val_json:
        raise UserError(
            f"data.val_fraction={fraction} takes the evaluation set from the training set, but "
            f"data.{'val' if data.val else 'val_json'} names one; leave one of them out."
        )
    if not (data.train or data.train_json):
        raise UserError(f"data.val_fraction={fraction} is a part of the training set; name it with data.train=…")


def _class_names(data: DictConfig) -> list[str]:
    if data.classes is None:
        return []
    if not isinstance(data.classes, ListConfig) or any(name is None for name in data.classes):
        raise UserError(f"data.classes={data.classes} must be a list of names: data.classes=[ace,king].")
    return [str(name) for name in data.classes]


def _read(data: DictConfig, split: str, *, required: bool, refuse: bool) -> AnnotatedSet | None:
    if not data[split]:
        return _read_files(data, split, required=required)
    path = Path(data[split]).expanduser()
    if not required and not path.exists():
        return None
    if not path.exists():
        raise UserError(f"data.{split}={data[split]}: there is no such file or folder.")
    data[split] = os.path.abspath(path)
    return read_dataset(data[split], split, refuse=refuse)


def _read_files(data: DictConfig, split: str, *, required: bool) -> AnnotatedSet | None:
    """The set of a COCO annotation file and an image folder."""
    json_file, images = data[f"{split}_json"], data[f"{split}_images"]
    if not json_file and not images:
        return None
    if not json_file or not images:
        given, lacking = ("images", "json") if images else ("json", "images")
        raise UserError(
            f"data.{split}_{given} needs data.{split}_{lacking} too: a COCO annotation file and its images."
        )
    if not required and not Path(json_file).is_file():
        return None
    if not Path(json_file).is_file():
        raise UserError(f"data.{split}_json={json_file}: there is no such file.")
    if not Path(images).is_dir():
        raise UserError(f"data.{split}_images={images}: there is no such folder.")
    try:
        content = load(json_file)
    except ValueError as e:
        raise UserError(f"data.{split}_json={json_file}: {e}.") from e
    content.check(f"data.{split}_json={json_file}")
    if not content.categories:
        raise UserError(f"data.{split}_json={json_file} lists no categories.")
    data[f"{split}_json"], data[f"{split}_images"] = os.path.abspath(json_file), os.path.abspath(images)
    path, root = Path(data[f"{split}_json"]), Path(data[f"{split}_images"])
    found = (content.images, content.annotations, content.categories)
    return AnnotatedSet(path, "COCO JSON", root, *found, json_file=path)


def _as_trained(val: AnnotatedSet, checkpoint: str) -> AnnotatedSet:
    """An evaluation set with the classes that a checkpoint was trained on, where it has no others."""
    stored = stored_categories(checkpoint) if checkpoint else None
    if not stored or not set(val.names) <= {c["name"] for c in stored}:
        return val  # what does not fit is refused with the checkpoint at hand
    return match_classes(val, stored, checkpoint)


def json_file_of(found: AnnotatedSet, split: str, cfg: DictConfig) -> str:
    """A COCO file of exactly this set: the one it was read from, or one that is written now."""
    if found.json_file is not None:
        return str(found.json_file.absolute())
    folder = Path(cfg.data.cache or Path(cfg.train.output_dir) / "data")
    file = Path(os.path.abspath(folder.expanduser())) / f"{split}.json"
    if file == found.path:
        raise UserError(
            f"{file} is itself what would be converted; name what it was made from, or another folder with data.cache=…"
        )
    write_coco(found, file)
    return str(file)


@contextmanager
def temporary_cache(cfg: DictConfig) -> Iterator[None]:
    """Lets converted sets go to a folder that is removed afterwards, unless the config names one; for what must leave
    the output folder alone."""
    if cfg.data.get("cache", "") is not None:  # named, or of a task that converts nothing
        yield
        return
    with TemporaryDirectory(prefix="converted-") as folder:
        cfg.data.cache = folder
        yield
