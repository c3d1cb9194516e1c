"""From an annotation file to its three lists, or a sentence on what the file is instead."""

import json
from pathlib import Path
from typing import Any

from pretrain.common.errors import UserError

__all__ = ["LISTS", "coco_lists", "parse_json", "read_coco_json"]

LISTS = ("images", "annotations", "categories")

OTHERS = "data.train=PATH and data.val=PATH take such annotations as they are"


def read_coco_json(json_file: Path) -> tuple[list[dict], list[dict], list[dict]]:
    """Images, annotations and categories of an existing COCO file, as they are written there.

    Raises:
        UserError: it is not one; the message continues a sentence that begins with the file's name.
    """
    return coco_lists(parse_json(json_file))


def coco_lists(content: object) -> tuple[list[dict], list[dict], list[dict]]:
    """Images, annotations and categories of what a JSON file holds; raises as :func:`read_coco_json`."""
    other = _other_json(content)
    if other:
        raise UserError(f"is not a COCO annotation file: {other}")
    assert isinstance(content, dict), "others are told above"
    missing = next((key for key in LISTS if key not in content), None)
    if missing:
        raise UserError(f"is not a COCO annotation file: it has no {missing!r}")
    images, annotations, categories = lists = [content[key] for key in LISTS]
    if not all(isinstance(entries, list) and all(isinstance(e, dict) for e in entries) for entries in lists):
        raise UserError("is not a COCO annotation file: images, annotations and categories must be lists of objects")
    return images, annotations, categories


def parse_json(json_file: Path) -> Any:
    """What a JSON file in UTF-8, UTF-16 or UTF-32 holds, with or without a byte order mark.

    Raises:
        UserError: it is not one; the message continues a sentence that begins with the file's name.
    """
    content = json_file.read_bytes()
    try:
        return json.loads(content)
    except RecursionError as e:
        raise UserError("is not a COCO annotation file: its lists are nested too deeply") from e
    except ValueError as e:
        raise UserError(f"is not a COCO annotation file: {_other_text(json_file, content) or e}") from e


def _other_text(json_file: Path, content: bytes) -> str | None:
    """What a file that is not JSON may be; None where only its fault is known."""
    if content.startswith(b"PK"):
        return "it is a ZIP archive; unpack it"
    text = content[:4096].decode("utf-8-sig", errors="replace").strip()
    if not text:
        return "it is empty"
    if text.startswith("<"):
        if "<annotations" in text:
            return f"it is XML as CVAT writes it; {OTHERS}"
        if "<annotation" in text:
            return f"it is XML in Pascal VOC's format; {OTHERS}"
        return f"it is XML; {OTHERS} in Pascal VOC's and CVAT's formats"
    lines = [line for line in text.splitlines() if line.strip()]
    if json_file.suffix.lower() == ".csv" or (len(lines) > 1 and text[0] not in "[{" and lines[0].count(",") > 2):
        return "it is a CSV table; export the annotations as COCO JSON"
    if json_file.suffix.lower() == ".txt" and all(len(line.split()) >= 5 for line in lines[:-1] or lines):
        return f"it is text as YOLO writes it; {OTHERS}, name their folder"
    return None


def _other_json(content: object) -> str | None:
    """What JSON of other tools is, or None for what may be COCO's."""
    if isinstance(content, list):
        return _other_list(content)
    if not isinstance(content, dict):
        return f"it holds {json.dumps(content)[:40]} alone"
    if any(key in content for key in LISTS[:2]) and "_via_img_metadata" not in content:
        return None
    if "_via_img_metadata" in content or any(isinstance(v, dict) and "regions" in v for v in content.values()):
        return f"it is a project or export of the VGG Image Annotator (VIA); {OTHERS}"
    if "shapes" in content and "imagePath" in content:
        return f"it is LabelMe's file of one image; {OTHERS}, name their folder"
    return None


def _other_list(content: list) -> str:
    entries = [e for e in content[:100] if isinstance(e, dict)]
    if entries and all("score" in e and "image_id" in e for e in entries):
        return "it holds detections (a COCO results file); name the file with the objects that were annotated"
    if entries and all("regions" in e and "filename" in e for e in entries):
        return f"it is an export of the VGG Image Annotator (VIA); {OTHERS}"
    if entries and all("data" in e and ("annotations" in e or "completions" in e) for e in entries):
        return f"it is an export of Label Studio; {OTHERS}"
    if entries and all("image_id" in e and "bbox" in e for e in entries):
        return "it is a bare list of annotations, without the lists of images and categories"
    return "it is a list, where COCO has an object with images, annotations and categories"
