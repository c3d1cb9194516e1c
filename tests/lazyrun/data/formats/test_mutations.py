"""Files of every format with one thing wrong: read, or refused in a sentence; never another exception."""

import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml
from layouts import (
    BOXES,
    NAMES,
    POLYGONS,
    SINGLE,
    TRIANGLE,
    coco,
    cvat_mask,
    cvat_xml,
    label_studio_result,
    label_studio_task,
    labelme_shape,
    percent,
    pixels,
    png_base64,
    points,
    via_entries,
    write_photos,
    write_voc,
    write_yolo,
)

from lazyrun.data.coco.content import clean
from lazyrun.data.formats import read_dataset
from pretrain.common.errors import UserError

EVERY = 7
"""One in so many of the spoiled files is tried, for the sake of time; 1 tries all."""

DELETE = object()
VALUES: tuple[Any, ...] = (
    *(DELETE, None, "", "text", "5", True, 0, -7, 10**400, 1e300, math.nan, math.inf),
    *([], [1], [[1]], [None], {}, {"a": 1}, {"a": {"b": []}}),
)
"""In place of every value of a file."""

TEXTS = (
    "",
    " ",
    "text",
    "nan",
    "inf",
    "-7",
    "1e300",
    "9" * 400,
    "0",
    "٣",
    "1,2",
    "a/b.jpg",
    "../..",
    "b.png",
    "\ud7ff",
)
"""In place of every text of an XML or YOLO file."""


def rectangle() -> dict:
    return label_studio_result(
        "rectanglelabels", "coin", dict(zip(("x", "y", "width", "height"), percent(BOXES[0][2]), strict=True))
    )


def label_studio() -> list:
    polygon = label_studio_result("polygonlabels", "kite", {"points": points(percent(TRIANGLE)), "closed": True})
    ellipse = label_studio_result("ellipselabels", "coin", {"x": 50, "y": 50, "radiusX": 9, "radiusY": 9})
    return [label_studio_task(1, "/data/upload/1/b.png", [rectangle(), polygon, ellipse])]


def labelme() -> dict:
    mask = pixels([TRIANGLE])[10:41, 10:31]
    shapes = [
        labelme_shape("coin", "rectangle", [[1, 2], [9, 9]]),
        labelme_shape("coin", "circle", [[20, 20], [23, 24]]),
        labelme_shape("kite", "polygon", points(TRIANGLE), 1),
        labelme_shape("kite", "mask", [[10.0, 10.0], [30.0, 40.0]], mask=png_base64(mask)),
    ]
    return {"version": "5", "flags": {}, "shapes": shapes, "imagePath": "b.png", "imageHeight": 48, "imageWidth": 64}


def via(version: int) -> dict:
    regions = [
        ("coin", {"name": "rect", "x": 1, "y": 2, "width": 9, "height": 9}),
        ("kite", {"name": "polygon", "all_points_x": TRIANGLE[::2], "all_points_y": TRIANGLE[1::2]}),
        ("coin", {"name": "ellipse", "cx": 20, "cy": 20, "rx": 9, "ry": 5, "theta": 1}),
    ]
    entries = via_entries({"b.png": regions}, version)
    if version == 1:
        return entries
    options = {"region": {"kind": {"type": "dropdown", "options": dict.fromkeys(NAMES, "")}}, "file": {}}
    return {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": options}


def coco_file() -> dict:
    content = coco(polygons=POLYGONS)
    runs = {"size": [48, 64], "counts": [100, 5, 48 * 64 - 105]}
    content["annotations"].append(
        {"id": 99, "image_id": 5, "category_id": 3, "bbox": [2, 4, 1, 5], "segmentation": runs}
    )
    return content | {"info": {"image_root": "."}}


JSON = {
    "COCO JSON": coco_file,
    "VIA 1": lambda: via(1),
    "VIA 2": lambda: via(2),
    "LabelMe": labelme,
    "Label Studio": label_studio,
}


def spoiled_json(content: Any) -> Iterator[tuple[str, Any]]:
    """The content with each of its values replaced in turn, and what was done."""
    for path in places(content):
        for value in VALUES:
            changed = copy.deepcopy(content)
            *parents, last = path
            node = changed
            for key in parents:
                node = node[key]
            if value is DELETE:
                del node[last]
            else:
                node[last] = copy.deepcopy(value)
            yield f"{path} = {'deleted' if value is DELETE else repr(value)[:20]}", changed


def places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where a JSON content has values; of long lists the first few."""
    children = node.items() if isinstance(node, dict) else enumerate(node[:3]) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def spoiled_xml(text: str) -> Iterator[tuple[str, str]]:
    """An XML file with each element renamed, removed and doubled, and each text and attribute replaced."""
    for number, element in enumerate(list(ET.fromstring(text).iter())):
        changes: dict[str, Callable[[ET.Element, ET.Element], object]] = {
            "renamed": lambda e, _: setattr(e, "tag", "x")
        }
        if number:
            changes["removed"] = lambda e, parent: parent.remove(e)
            changes["doubled"] = lambda e, parent: parent.append(copy.deepcopy(e))
        if not len(element):
            changes |= {f"= {t!r:.20}": lambda e, _, t=t: setattr(e, "text", t) for t in TEXTS}
        for key in element.attrib:
            changes |= {f"{key}= {t!r:.20}": lambda e, _, k=key, t=t: e.set(k, t) for t in TEXTS}
            changes[f"without {key}"] = lambda e, _, k=key: e.attrib.pop(k)
        for what, change in changes.items():
            root = ET.fromstring(text)
            target = list(root.iter())[number]
            change(target, next((p for p in root.iter() if target in list(p)), root))
            yield f"{element.tag} {number} {what}", ET.tostring(root, encoding="unicode")


def spoiled_lines(text: str) -> Iterator[tuple[str, str]]:
    """A YOLO file with each word replaced, removed and doubled."""
    words = text.split(" ")
    for number, word in enumerate(words):
        for other in (*TEXTS, "", f"{word} {word}", "-0.5", "1.5", "1.005", "nan"):
            yield f"word {number} = {other!r:.20}", " ".join([*words[:number], other, *words[number + 1 :]])


def spoiled_bytes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file cut off, with single bytes changed, and in other encodings."""
    rng = np.random.default_rng(0)
    for length in np.linspace(0, len(data) - 1, 12, dtype=int).tolist():
        yield f"{length} bytes", data[:length]
    for place in rng.integers(0, len(data), 20).tolist():
        yield f"byte {place}", data[:place] + bytes([rng.integers(256)]) + data[place + 1 :]
    text = data.decode()
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp037"):
        yield encoding, text.encode(encoding, "replace")
    yield "nested", b"[" * 200_000
    yield "zeros", bytes(100)


def spoiled_files(folder: Path, kind: str) -> Iterator[tuple[str, Path, bytes]]:
    """What is done, to which file, and its new content, for a data set that is written to a folder."""
    write_photos(folder)
    if kind in JSON:
        content = JSON[kind]()
        for what, changed in spoiled_json(content):
            yield what, folder / "b.json", json.dumps(changed).encode()
        yield from ((what, folder / "b.json", data) for what, data in spoiled_bytes(json.dumps(content).encode()))
    elif kind == "YOLO":
        write_yolo(folder, BOXES[1:2], SINGLE[:1])
        content = {"path": ".", "train": ".", "nc": 2, "names": {0: "coin", 1: "kite"}}
        description, labels = folder / "data.yaml", folder / "a 1.txt"
        description.write_text(yaml.safe_dump(content))
        text = labels.read_bytes()
        yield from ((what, labels, data.encode(errors="replace")) for what, data in spoiled_lines(text.decode()))
        yield from ((what, labels, data) for what, data in spoiled_bytes(text))
        labels.write_bytes(text)
        for what, changed in spoiled_json(content):
            yield what, description, yaml.safe_dump(changed).encode()
        yield from ((what, description, data) for what, data in spoiled_bytes(yaml.safe_dump(content).encode()))
    else:
        text = XML[kind](folder)
        yield from ((what, folder / "b.xml", data.encode()) for what, data in spoiled_xml(text))
        yield from ((what, folder / "b.xml", data) for what, data in spoiled_bytes(text.encode()))


def cvat(_: Path) -> str:
    outline = ";".join(f"{x},{y}" for x, y in points(TRIANGLE))
    shapes = (
        '<box label="coin" xtl="1" ytl="2" xbr="9" ybr="9" rotation="3"/>'
        f'<polygon label="kite" points="{outline}" group_id="1"/>'
        '<ellipse label="coin" cx="20" cy="20" rx="5" ry="9" rotation="3"/>'
    )
    return cvat_xml({"b.png": shapes + cvat_mask("coin", pixels([TRIANGLE]))})


def voc(folder: Path) -> str:
    write_voc(folder, folder, [("b.png", "coin", [1, 2, 9, 9])])
    outline = "<polygon><x1>1</x1><y1>2</y1><x2>9</x2><y2>2</y2><x3>1</x3><y3>9</y3></polygon></object>"
    return (folder / "b.xml").read_text().replace("</object>", outline)


XML = {"CVAT": cvat, "Pascal VOC": voc}


def outcome(path: Path) -> str:
    """What is wrong with the way in which a path is read or refused; "" for nothing."""
    try:
        found = read_dataset(path)
        clean(found.images, found.annotations, found.categories)  # as for the check, training and evaluation
        json.dumps(found.content)
    except UserError as e:
        return "" if str(path) in str(e) else f"the path is not named: {e}"
    except Exception as e:  # what the test is about
        return f"{type(e).__name__}: {e}"
    return ""


@pytest.mark.parametrize("kind", [*JSON, *XML, "YOLO"])
def test_spoiled_files(tmp_path, kind):
    wrong = []
    for what, file, data in itertools.islice(spoiled_files(tmp_path, kind), 0, None, EVERY):
        file.write_bytes(data)
        if problem := outcome(tmp_path):
            wrong.append(f"{file.name}, {what}: {problem}")
    assert wrong == []
