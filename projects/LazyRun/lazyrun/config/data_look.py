"""A look at the data that a training command would be given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lazyrun.config.data_options import DATA_OPTIONS, read_sets
from lazyrun.config.loading import load_config
from lazyrun.config.overrides import apply_overrides
from lazyrun.data.corrupt import MAX_CORRUPT, share_of_corrupt
from lazyrun.data.inspection import WORKERS
from lazyrun.data.inspection.look import TRAINING, Look, SetLook, look_at
from lazyrun.data.inspection.model_input import ModelInput, model_input
from lazyrun.data.padding import check_padding, check_training_images
from pretrain.common.errors import UserError

__all__ = ["look_at_data"]


def look_at_data(
    train: Path,
    val: Path | None = None,
    *,
    config_file: str | None = None,
    overrides: Sequence[str] = (),
    image_size: int | None = None,
    workers: int = WORKERS,
) -> Look:
    """Reads and checks what `data.train` and `data.val` would name.

    Args:
        train, val: annotated images in any format of :mod:`lazyrun.data.formats`.
        config_file: of the training; without one the COCO configs are taken for what sizes are compared with.
        overrides: `key=value` changes of the config; without one, of its `data` node.
        image_size: `data.image_size`.
        workers: threads that open images.

    Raises:
        UserError: the options do not fit together, or what `train` names cannot be read at all.
    """
    cfg = _config(config_file, overrides, image_size)
    cfg.data.train, cfg.data.val = str(train), None if val is None else str(val)
    refusals: list[str] = []
    try:
        train_set, val_set = read_sets(cfg, training=True, refuse=False)
    except UserError as e:
        if val is None:
            raise
        refusals.append(str(e))
        cfg.data.val = None
        train_set, val_set = read_sets(cfg, training=True, refuse=False)
    assert train_set is not None, "a training needs it"
    options: dict[str, Any] = {"max_corrupt": share_of_corrupt(cfg), "workers": workers}
    if config_file:
        options["mask_head"] = cfg.model.get("roi_heads", {}).get("mask_head") is not None
        options["model"] = model_input(cfg)
    elif image_size is not None:
        options["model"] = ModelInput(image_size, image_size)
    look = look_at(train_set, val_set, **options)
    look.refusals += refusals
    if config_file:
        look.refusals += _cut_off(cfg, look.sets[TRAINING])
    return look


def _config(config_file: str | None, overrides: Sequence[str], image_size: int | None) -> DictConfig:
    """The config of the training; without a file only its `data` node."""
    if config_file:
        size = [] if image_size is None else [f"data.image_size={image_size}"]
        cfg = load_config(config_file, [*overrides, *size])
        if DATA_OPTIONS[0] not in cfg.data or "train_labels" in cfg.data:
            raise UserError(f"Config file {config_file} is not of a detector; name a detector's, or none.")
        return cfg
    data = {**dict.fromkeys(DATA_OPTIONS), "max_corrupt": MAX_CORRUPT}
    cfg = OmegaConf.create({"data": data, "train": {"epochs": None}})  # the key that overrides are checked against
    apply_overrides(cfg, overrides)
    return cfg


def _cut_off(cfg: DictConfig, look: SetLook) -> list[str]:
    """What the check of sizes against the square that images are padded to refuses."""
    records = [{**i, "file_name": str(look.source.root / i["file_name"])} for i in look.content.images]
    found = []
    for check in (lambda: check_padding(cfg), lambda: check_training_images(cfg, records)):
        try:
            check()
        except UserError as e:
            found.append(str(e))
    return found
