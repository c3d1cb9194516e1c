"""Which classes a detector knows: those of its data set, and those that its checkpoint remembers."""

import json
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from lazyrun.data.weight_names import local_weights
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint

__all__ = ["categories_of", "check_same_classes", "stored_categories"]


def categories_of(dataset_name: str) -> list[dict] | None:
    """The classes of a registered data set, None where they are not known.

    Returns:
        `{"id": category id of the annotation file or label in the label maps, "name": class name}` for each class, in
        the order of the model's class indices.
    """
    if dataset_name not in DatasetCatalog.list():
        return None
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("evaluator_type") == "sem_seg":
        first = int(metadata.get("reduce_zero_label", False))
        return [{"id": label, "name": name} for label, name in enumerate(metadata.stuff_classes, start=first)]
    names = metadata.get("thing_classes")
    if names is None:
        return _categories_in(metadata.get("json_file"))
    ids = {index: i for i, index in metadata.get("thing_dataset_id_to_contiguous_id", {}).items()}
    first = 1 if metadata.get("evaluator_type") == "lvis" else 0  # LVIS counts from 1 and registers no mapping
    return [{"id": ids.get(index, index + first), "name": name} for index, name in enumerate(names)]


def _categories_in(json_file: str | None) -> list[dict] | None:
    """detectron2 numbers the classes of a COCO file in the order of their ids."""
    if not json_file or not Path(json_file).is_file():
        return None
    try:
        categories = json.loads(Path(json_file).read_bytes())["categories"]
        return [{"id": c["id"], "name": c["name"]} for c in sorted(categories, key=lambda c: c["id"])]
    except (ValueError, KeyError, TypeError):
        return None


def stored_categories(checkpoint: str) -> list[dict] | None:
    """The classes that a run of this project wrote into its checkpoint; None for other files.

    Raises:
        UserError: what stands in their place is none.
    """
    try:
        content = load_checkpoint(local_weights(checkpoint))
    except (FileNotFoundError, ValueError):
        return None  # a URL, or a file whose fault loading its weights will tell
    categories = content.get("categories") if isinstance(content, dict) else None
    if categories is not None and not _are_categories(categories):
        raise UserError(
            f"Checkpoint {checkpoint} is not read: its categories are no list of {{'id': number, 'name': text}}, each "
            "with an id of its own."
        )
    return categories


def _are_categories(categories: object) -> bool:
    if not isinstance(categories, list) or not all(isinstance(c, dict) for c in categories):
        return False
    ids = [c.get("id") for c in categories]
    sound = all(type(i) is int for i in ids) and all(isinstance(c.get("name"), str) for c in categories)
    return sound and len(set(ids)) == len(ids)


def check_same_classes(checkpoint: str, dataset_name: str, way_out: str) -> None:
    """Raises UserError, whose message ends in `way_out`, if a checkpoint was trained on other classes than a data set.

    Where either does not tell its classes, nothing is checked.
    """
    trained, present = stored_categories(checkpoint), categories_of(dataset_name)
    if trained and present and [c["name"] for c in trained] != [c["name"] for c in present]:
        raise UserError(
            f"Checkpoint {checkpoint} was trained on {_listed(trained)}, but data set {dataset_name} has "
            f"{_listed(present)}: {way_out}"
        )


def _listed(categories: list[dict]) -> str:
    shown = ", ".join(c["name"] for c in categories[:5]) + (", …" if len(categories) > 5 else "")
    return f"{len(categories)} classes ({shown})"
