"""A user's own COCO-format data set in any config, without editing it: `data.train_json=…` and its companions.

What follows from the files is written into the config (data set names, class count, mask head, evaluator), so the
`config.yaml` of a run shows it and runs again.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import LVISEvaluator
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from lazyrun.data.coco.content import load
from lazyrun.data.coco.records import register_coco
from lazyrun.data.detections import set_max_detections
from lazyrun.evaluation.coco import COCOEvaluator
from pretrain.common.errors import UserError

__all__ = ["DATA_OPTIONS", "set_class_count", "use_custom_data", "without_evaluation"]

logger = logging.getLogger(__name__)

DATA_OPTIONS = ("train_json", "train_images", "val_json", "val_images")
"""Keys of the config's `data` node: COCO annotation file and image folder for training and for evaluation."""


@dataclass
class _CustomSet:
    """One annotation file, and what the config must know of it."""

    json_file: str
    image_root: str
    categories: list[dict]  # in the order of their ids, which is that of the model's class indices
    has_masks: bool
    has_run_lengths: bool

    def register(self) -> str:
        """Registers the set with detectron2 under the path of its file, again if another folder was meant before."""
        name = self.json_file
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        metadata = {
            "thing_classes": [c["name"] for c in self.categories],
            "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(self.categories)},
        }
        register_coco(name, self.json_file, self.image_root, metadata)
        return name


def use_custom_data(cfg: DictConfig, *, training: bool) -> None:
    """Registers the data sets that `cfg.data` names and fits the config to them; without any it does nothing.

    Args:
        cfg: changed in place: data set names, every `num_classes` of the model, the mask head and the mapper of
            data without masks, the evaluator; paths become absolute.
        training: the training set is needed; for an evaluation it may be missing.

    Raises:
        UserError: a file or folder is missing, a file is not COCO, or both files do not list the same categories,
            or training has only an evaluation set.
    """
    if not any(cfg.data[key] for key in DATA_OPTIONS):
        return
    train, val = _read(cfg.data, "train", required=training), _read(cfg.data, "val", required=True)
    if training and not train:
        raise UserError("data.val_json without data.train_json: training would take the config's own data; name both.")
    if train and val:
        _check_same_categories(train, val)
    known = train or val
    if known:
        set_class_count(cfg.model, len(known.categories))
        _without_federated_loss(cfg.model)
    if train:
        cfg.dataloader.train.dataset.names = train.register()
        _fit_masks(cfg, train)
    if val:
        _evaluate_on(cfg, val)
        set_max_detections(cfg)
    elif cfg.data.train_json:
        without_evaluation(cfg, "data.val_json")


def set_class_count(model: DictConfig, count: int) -> None:
    """Sets every `num_classes` in a detector's config that is a number; references to another one follow it."""
    for node, key in _entries(model):
        if key == "num_classes":
            node[key] = count


def _entries(node: Any) -> Iterator[tuple[Any, str | int]]:
    """All places of a config that hold a value, as container and key; semantic segmentation counts other classes."""
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key) or key == "sem_seg_head":
            continue
        if OmegaConf.is_config(node[key]):
            yield from _entries(node[key])
        else:
            yield node, key


def _read(data: DictConfig, split: str, *, required: bool) -> _CustomSet | None:
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
    objects = [a for a in content.annotations if not a.get("iscrowd")] or content.annotations
    segmentations = [a["segmentation"] for a in objects if a.get("segmentation")]
    return _CustomSet(
        data[f"{split}_json"],
        data[f"{split}_images"],
        [{"id": c["id"], "name": c["name"]} for c in content.categories],
        has_masks=bool(segmentations),
        has_run_lengths=any(isinstance(s, dict) for s in segmentations),
    )


def _check_same_categories(train: _CustomSet, val: _CustomSet) -> None:
    ours, theirs = ({(c["id"], c["name"]) for c in s.categories} for s in (train, val))
    if ours != theirs:
        only = "; ".join(
            f"only in {s.json_file}: {', '.join(f'{i} {name}' for i, name in sorted(some)[:5])}"
            for s, some in ((train, ours - theirs), (val, theirs - ours))
            if some
        )
        raise UserError(f"data.train_json and data.val_json must list the same categories ({only}).")


def _without_federated_loss(model: DictConfig) -> None:
    for node, key in _entries(model):
        if key == "use_fed_loss" and node[key]:
            node[key] = False
            logger.info("Custom data: no federated loss, it is for LVIS, whose images are not annotated in full.")


def _fit_masks(cfg: DictConfig, train: _CustomSet) -> None:
    mapper = cfg.dataloader.train.mapper
    if train.has_run_lengths and "use_instance_mask" in mapper:
        mapper.instance_mask_format = "bitmask"
    if train.has_masks:
        return
    logger.warning(f"{train.json_file} has no segmentation: boxes alone are trained, the mask head is off.")
    heads = cfg.model.get("roi_heads", {})
    if "mask_head" in heads:
        heads.update(mask_in_features=None, mask_head=None, mask_pooler=None)
    if "use_instance_mask" in mapper:
        mapper.update(use_instance_mask=False, recompute_boxes=False)


def _evaluate_on(cfg: DictConfig, val: _CustomSet) -> None:
    cfg.dataloader.test.dataset.names = val.register()
    if "evaluator" not in cfg.dataloader or _target(cfg.dataloader.evaluator) is LVISEvaluator:
        cfg.dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
    if not val.has_masks:
        cfg.dataloader.evaluator.tasks = ["bbox"]
        logger.info(f"{val.json_file} has no segmentation: boxes alone are evaluated.")


def _target(node: DictConfig) -> object:
    return locate(node._target_) if isinstance(node._target_, str) else node._target_


def without_evaluation(cfg: DictConfig, missing: str) -> None:
    """Fits a config to custom data without an evaluation set, which the option `missing` would name."""
    if "evaluator" in cfg.dataloader:
        logger.warning(f"There is no {missing}: nothing will be evaluated, and no model_best.pth kept.")
        del cfg.dataloader["evaluator"]
    cfg.dataloader.test.dataset.names = cfg.dataloader.train.dataset.names  # its transform still serves predictions
