"""A user's own annotated images in any config, without editing it: `data.train=…` and its companions.

What follows from the files is written into the config (data set names, class count, mask head, evaluator), so the
`config.yaml` of a run shows it and runs again.
"""

import logging
from collections.abc import Iterator
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import LVISEvaluator
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from lazyrun.config.data_options import DATA_OPTIONS, json_file_of, names_data, read_sets
from lazyrun.data.coco.records import register_coco
from lazyrun.data.detections import set_max_detections
from lazyrun.data.formats import AnnotatedSet
from lazyrun.evaluation.coco import COCOEvaluator

__all__ = ["DATA_OPTIONS", "set_class_count", "use_custom_data", "without_evaluation"]

logger = logging.getLogger(__name__)


def use_custom_data(cfg: DictConfig, *, training: bool) -> None:
    """Registers the data sets that `cfg.data` names and fits the config to them; without any it does nothing.

    What is not a COCO file, or has other category ids than the training set, is converted into one first.

    Args:
        cfg: changed in place: data set names, every `num_classes` of the model, the mask head and the mapper of
            data without masks, the evaluator; paths become absolute.
        training: the training set is needed; for an evaluation it may be missing.

    Raises:
        UserError: a file or folder is missing or cannot be read, the evaluation set has a class that the training set
            has not, or training has only an evaluation set.
    """
    if not names_data(cfg.data):
        return
    train, val = read_sets(cfg, training=training)
    known = train or val
    if known:
        set_class_count(cfg.model, len(known.categories))
        _without_federated_loss(cfg.model)
    if train:
        cfg.dataloader.train.dataset.names = _register(train, json_file_of(train, "train", cfg))
        _fit_masks(cfg, train)
    if val:
        if not train and cfg.data.val and not _masks(val):
            _without_masks(cfg)  # else a checkpoint of boxes alone would lack the mask head
        _evaluate_on(cfg, val, _register(val, json_file_of(val, "val", cfg)))
        set_max_detections(cfg)
    elif cfg.data.train or cfg.data.train_json:
        without_evaluation(cfg, "data.val" if cfg.data.train else "data.val_json")


def _register(found: AnnotatedSet, json_file: str) -> str:
    """Registers a set with detectron2 under the path of its file, again if another folder was meant before."""
    if json_file in DatasetCatalog.list():
        DatasetCatalog.remove(json_file)
        MetadataCatalog.remove(json_file)
    metadata = {
        "thing_classes": found.names,
        "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(found.categories)},
    }
    register_coco(json_file, json_file, str(found.root), metadata)
    return json_file


def _masks(found: AnnotatedSet) -> list:
    """The segmentations of single objects."""
    objects = [a for a in found.annotations if not a.get("iscrowd")] or found.annotations
    return [a["segmentation"] for a in objects if a.get("segmentation")]


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


def _without_federated_loss(model: DictConfig) -> None:
    for node, key in _entries(model):
        if key == "use_fed_loss" and node[key]:
            node[key] = False
            logger.info("Custom data: no federated loss, it is for LVIS, whose images are not annotated in full.")


def _fit_masks(cfg: DictConfig, train: AnnotatedSet) -> None:
    mapper, masks = cfg.dataloader.train.mapper, _masks(train)
    if any(isinstance(mask, dict) for mask in masks) and "use_instance_mask" in mapper:
        mapper.instance_mask_format = "bitmask"
    if not masks:
        logger.warning(f"{train.path} has no segmentation: boxes alone are trained, the mask head is off.")
        _without_masks(cfg)


def _without_masks(cfg: DictConfig) -> None:
    mapper, heads = cfg.dataloader.train.mapper, cfg.model.get("roi_heads", {})
    if "mask_head" in heads:
        heads.update(mask_in_features=None, mask_head=None, mask_pooler=None)
    if "use_instance_mask" in mapper:
        mapper.update(use_instance_mask=False, recompute_boxes=False)


def _evaluate_on(cfg: DictConfig, val: AnnotatedSet, name: str) -> None:
    cfg.dataloader.test.dataset.names = name
    if "evaluator" not in cfg.dataloader or _target(cfg.dataloader.evaluator) is LVISEvaluator:
        cfg.dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
    if not _masks(val):
        cfg.dataloader.evaluator.tasks = ["bbox"]
        logger.info(f"{val.path} has no segmentation: boxes alone are evaluated.")


def _target(node: DictConfig) -> object:
    return locate(node._target_) if isinstance(node._target_, str) else node._target_


def without_evaluation(cfg: DictConfig, missing: str) -> None:
    """Fits a config to custom data without an evaluation set, which the option `missing` would name."""
    if "evaluator" in cfg.dataloader:
        logger.warning(f"There is no {missing}: nothing will be evaluated, and no model_best.pth kept.")
        del cfg.dataloader["evaluator"]
    cfg.dataloader.test.dataset.names = cfg.dataloader.train.dataset.names  # its transform still serves predictions
