"""Cleaning of COCO's list of annotations."""

import math
from typing import TYPE_CHECKING, Any

from lazyrun.data.coco.boxes import BOX, BoxStatistics
from lazyrun.data.coco.identity import IdMap, whole_number
from lazyrun.data.coco.masks import BadMask, Mask, clean_mask

if TYPE_CHECKING:
    from lazyrun.data.coco.content import CocoContent

__all__ = ["clean_annotations"]


def clean_annotations(
    content: "CocoContent", annotations: list[dict], image_ids: IdMap, categories: dict[int, dict]
) -> None:
    """Adds the cleaned annotations to `content`, and what is wrong with the others to its faults.

    Args:
        content: with its images and categories.
        annotations: of the file.
        image_ids: ids of the images.
        categories: by id.
    """
    sizes = {i["id"]: (i["width"], i["height"]) if i["width"] and i["height"] else None for i in content.images}
    files = {i["id"]: str(i["file_name"]) for i in content.images}
    _check_references(content, annotations, image_ids, categories)
    if content.faults:
        return
    boxes = BoxStatistics()
    for annotation in annotations:
        image_id = image_ids.get(annotation["image_id"])
        assert image_id is not None, "references were checked"
        entry = {**annotation, "image_id": image_id, "category_id": whole_number(annotation["category_id"])}
        file = files[image_id]
        if not _clean_flags(content, entry, file) or not _clean_box(content, entry, file):
            continue
        mask = _clean_segmentation(content, entry, sizes[image_id], file)
        if mask is None:
            continue
        boxes.add(entry, sizes[image_id], mask.bounds, file)
        if min(entry["bbox"][2:]) <= 0:
            example = f"annotation {entry['id']}: {entry['bbox']}"
            content.degenerate.note("boxes without area", example, "left out.", file=file)
        else:
            content.annotations.append(entry)
    boxes.judge(content.doubts)
    _settle_thin(content, files)


def _check_references(
    content: "CocoContent", annotations: list[dict], image_ids: IdMap, categories: dict[int, dict]
) -> None:
    content.faults.add(
        "annotations of unknown images",
        [a["id"] for a in annotations if image_ids.get(a.get("image_id")) is None],
        "every image_id must be the id of an image.",
    )
    stated = {_hashable(a.get("category_id")): whole_number(a.get("category_id")) for a in annotations}
    content.faults.add(
        "category ids that no category has",
        sorted((str(value) for value, number in stated.items() if number not in categories), key=str),
        f"the file's categories have the ids {sorted(categories)[:10]}.",
    )
    odd = [value for value, number in stated.items() if type(value) is not int and number in categories]
    content.mended.add("category ids of annotations written as text or with a decimal point", map(repr, odd))


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else repr(value)


def _clean_flags(content: "CocoContent", entry: dict, file: str) -> bool:
    """Makes `iscrowd` 0 or 1, and a crowd of what is to be ignored; False after noting a fault."""
    value = entry.get("iscrowd", 0)
    if type(value) is not int or value not in (0, 1):
        flag = 0 if value is None else int(value) if isinstance(value, bool) else whole_number(value)
        if flag not in (0, 1):
            kind = "annotations whose iscrowd is neither 0 nor 1"
            content.faults.note(kind, f"annotation {entry['id']}: {value!r}", "write 0 or 1.", file=file)
            return False
        kind = "values of iscrowd written otherwise than 0 or 1"
        content.mended.note(kind, f"annotation {entry['id']}: {value!r}", file=file)
        entry["iscrowd"] = flag
    if entry.pop("ignore", None) not in (0, None, "0", ""):
        way_out = "taken as crowds, which count neither way."
        content.mended.note("annotations to be ignored", f"annotation {entry['id']}", way_out, file=file)
        entry["iscrowd"] = 1
    return True


def _clean_box(content: "CocoContent", entry: dict, file: str) -> bool:
    """Checks the box and drops an area that is none; False after noting a fault."""
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(_is_finite(v) for v in box)):
        way_out = f"{BOX[:-1]}, not {repr(box)[:60]}."
        content.faults.note("annotations whose bbox is not four numbers", entry["id"], way_out, file=file)
        return False
    if "area" in entry and not (_is_finite(entry["area"]) and entry["area"] >= 0):
        example = f"annotation {entry['id']}: {entry['area']!r:.20}"
        content.mended.note("areas that are no numbers", example, "measured anew.", file=file)
        del entry["area"]
    return True


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _clean_segmentation(content: "CocoContent", entry: dict, size: tuple[int, int] | None, file: str) -> Mask | None:
    """The mask, which the entry gets in place of its segmentation; None after noting a fault."""
    given = entry.pop("segmentation", None)
    try:
        mask = clean_mask(given, size)
    except BadMask as e:
        kind, way_out = "annotations whose segmentation cannot be used", "correct it or leave it out."
        content.faults.note(kind, f"annotation {entry['id']}: {e}", way_out, file=file)
        return None
    for oddity in mask.oddities:
        content.mended.note(oddity, f"annotation {entry['id']}", file=file)
    if mask.value is not None or given:
        entry["segmentation"] = mask.value
    return mask


def _settle_thin(content: "CocoContent", files: dict[int, str]) -> None:
    """Objects whose segmentation holds no polygon are left out; in a file without any mask they are boxes."""
    thin = [a for a in content.annotations if "segmentation" in a and a["segmentation"] is None]
    masks = any(a.get("segmentation") and not a.get("iscrowd") for a in content.annotations)
    if not thin:
        return
    if masks:
        content.left_out = thin
        content.annotations = [a for a in content.annotations if "segmentation" not in a or a["segmentation"]]
        kind, done = "objects without a polygon of three points", "left out of training and evaluation."
    else:
        kind, done = "masks without a polygon of three points", "taken as boxes, as the file has no masks."
    for annotation in thin:
        content.mended.note(kind, f"annotation {annotation['id']}", done, file=files[annotation["image_id"]])
        del annotation["segmentation"]
