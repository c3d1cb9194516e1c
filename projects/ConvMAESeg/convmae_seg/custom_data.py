"""A user's own folders of images and label maps in any segmentation config, without editing it.

What follows from them is written into the config (data set names, class count, evaluator), so the `config.yaml` of a
run shows it and runs again.
"""

import logging
import os
from pathlib import Path

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from convmae_seg.datasets import find_pairs, register_label_maps
from convmae_seg.evaluation import SemSegEvaluator
from convmae_seg.label_maps import MAX_CLASSES
from lazyrun.config.custom_data import set_class_count, without_evaluation
from pretrain.common.errors import UserError

__all__ = ["DATA_OPTIONS", "read_class_names", "use_custom_data"]

logger = logging.getLogger(__name__)

DATA_OPTIONS = ("train_images", "train_labels", "val_images", "val_labels", "class_names", "ignore_label")
"""Keys of the config's `data` node: folders for training and for evaluation; a text file of class names, one a line;
255 for labels 0…K-1, or 0 for labels 1…K."""

ZERO_IS_IGNORED = {0: True, 255: False}


def use_custom_data(cfg: DictConfig, *, training: bool) -> None:
    """Registers the folders that `cfg.data` names and fits the config to them; without any it does nothing.

    Args:
        cfg: changed in place: data set names, every `num_classes` of the model, the evaluator; paths become absolute.
        training: the training set is needed; for an evaluation it may be missing.

    Raises:
        UserError: an option, folder or file is missing or cannot be used, or training has only an evaluation set.
    """
    data = cfg.data
    if not any(data.get(key) is not None for key in DATA_OPTIONS):
        return
    train, val = _folders(data, "train", required=training), _folders(data, "val", required=True)
    if not data.get("train_images") and not val:
        raise UserError("data.class_names and data.ignore_label need folders: data.train_images and data.train_labels.")
    if training and not train:
        raise UserError(
            "data.val_images without data.train_images: training would take the config's own data; name both."
        )
    names = _class_names(data)
    reduce_zero_label = _zero_is_ignored(data)
    set_class_count(cfg.model, len(names))
    for split, folders in (("train", train), ("test", val)):
        if folders:
            images, labels = folders
            find_pairs(images, labels)  # report a missing partner before anything is built
            register_label_maps(labels, images, labels, names, reduce_zero_label=reduce_zero_label)
            cfg.dataloader[split].dataset.names = labels
    if not val:
        without_evaluation(cfg, "data.val_images")
    elif "evaluator" not in cfg.dataloader:
        cfg.dataloader.evaluator = L(SemSegEvaluator)(dataset_name="${..test.dataset.names}")


def _folders(data: DictConfig, split: str, *, required: bool) -> tuple[str, str] | None:
    images, labels = data.get(f"{split}_images"), data.get(f"{split}_labels")
    if not images and not labels:
        return None
    if not images or not labels:
        given, lacking = ("images", "labels") if images else ("labels", "images")
        raise UserError(f"data.{split}_{given} needs data.{split}_{lacking} too: a folder of images and one of labels.")
    for key in ("images", "labels"):
        folder = data[f"{split}_{key}"]
        if not Path(folder).is_dir():
            if not required:
                return None
            raise UserError(f"data.{split}_{key}={folder}: there is no such folder.")
        data[f"{split}_{key}"] = os.path.abspath(folder)
    return data[f"{split}_images"], data[f"{split}_labels"]


def _class_names(data: DictConfig) -> list[str]:
    if not data.get("class_names"):
        raise UserError("data.class_names=FILE is missing: a text file with the name of each class, one a line.")
    names = read_class_names(data.class_names)
    data.class_names = os.path.abspath(data.class_names)
    return names


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Class names, one a line, in the order of their labels; blank lines do not count.

    Raises:
        UserError: the file cannot be read, is empty, or names a class twice or too many of them.
    """
    if not Path(path).is_file():
        raise UserError(f"data.class_names={path}: there is no such file.")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise UserError(f"data.class_names={path} is not a text file in UTF-8: {e}.") from e
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"data.class_names={path} is empty; it needs the name of each class, one a line.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"data.class_names={path} names {twice[0]!r} twice; each class needs a name of its own.")
    if len(names) > MAX_CLASSES:
        raise UserError(f"data.class_names={path} names {len(names)} classes; {MAX_CLASSES} is the most.")
    return names


def _zero_is_ignored(data: DictConfig) -> bool:
    if data.get("ignore_label") not in ZERO_IS_IGNORED or isinstance(data.ignore_label, bool):
        given = "is missing" if data.get("ignore_label") is None else f"is {data.ignore_label}"
        raise UserError(
            f"data.ignore_label {given}; choose 255 if the classes are labels 0, 1, 2, … and 255 is ignored, or 0 if "
            "they are labels 1, 2, 3, … and 0 is ignored."
        )
    return ZERO_IS_IGNORED[data.ignore_label]
