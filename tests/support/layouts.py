"""One tiny annotated set, and how each annotation tool would lay it out: the tests' own examples of every format."""

import base64
import io
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image
from pycocotools import mask as mask_util

from lazyrun.data.formats import AnnotatedSet

WIDTH, HEIGHT = 64, 48
NAMES = ["coin", "kite"]
PHOTOS = ["a 1.jpg", "b.png", "empty.jpg", "été.JPG"]
"""In order of names; the third has no object."""

TRIANGLE, LEFT, RIGHT = [10, 10, 30.5, 12, 20, 40], [1, 1, 9, 1, 9, 20, 1, 20], [40, 5, 60, 5, 60, 25, 40, 25]
BOXES = [
    ("a 1.jpg", "coin", [10, 12, 20, 16]),
    ("a 1.jpg", "kite", [0, 0, 64, 48]),
    ("été.JPG", "kite", [5, 6, 7, 8.5]),
]
POLYGONS = [("a 1.jpg", "kite", [TRIANGLE]), ("b.png", "coin", [LEFT, RIGHT]), ("été.JPG", "coin", [RIGHT])]
SINGLE = [p for p in POLYGONS if len(p[2]) == 1]


def write_photos(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(PHOTOS):
        Image.new("RGB", (WIDTH, HEIGHT), (60 * number, 90, 30)).save(folder / name)
    return folder


def bounds(polygons: list) -> list[float]:
    x, y = ([v for p in polygons for v in p[axis::2]] for axis in (0, 1))
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def coco(boxes: list = BOXES, polygons: list = ()) -> dict:
    """The original: boxes without mask, or polygons."""
    annotations = [(name, label, {"bbox": box}) for name, label, box in boxes]
    annotations += [(n, label, {"bbox": bounds(p), "segmentation": p}) for n, label, p in polygons]
    return {
        "images": [{"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(PHOTOS, 5)],
        "categories": [{"id": 3 + i, "name": name} for i, name in enumerate(NAMES)],
        "annotations": [
            {"id": i, "image_id": 5 + PHOTOS.index(n), "category_id": 3 + NAMES.index(label), "iscrowd": 0, **shape}
            for i, (n, label, shape) in enumerate(annotations, 1)
        ],
    }


def objects(content: AnnotatedSet | dict) -> list[tuple]:
    """Photo, class, box and polygons of every object, whatever the ids."""
    content = content.content if isinstance(content, AnnotatedSet) else content
    files = {i["id"]: Path(i["file_name"]).name for i in content["images"]}
    names = {c["id"]: c["name"] for c in content["categories"]}
    found = []
    for a in content["annotations"]:
        polygons = [[round(v, 3) for v in p] for p in a.get("segmentation", [])]
        box = [round(v, 3) for v in a["bbox"]]
        found.append((files[a["image_id"]], names[a["category_id"]], box, polygons))
    return sorted(found)


def masks(content: AnnotatedSet | dict) -> list[tuple]:
    """Photo, class and the pixels of every object."""
    content = content.content if isinstance(content, AnnotatedSet) else content
    files = {i["id"]: Path(i["file_name"]).stem for i in content["images"]}
    names = {c["id"]: c["name"] for c in content["categories"]}
    return sorted((files[a["image_id"]], names[a["category_id"]], bitmap(a).tobytes()) for a in content["annotations"])


def bitmap(annotation: dict) -> np.ndarray:
    """Bool `(H, W)` of an annotation with polygons or run lengths."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, HEIGHT, WIDTH))
    return mask_util.decode(segmentation).astype(bool)


def pixels(polygons: list) -> np.ndarray:
    return bitmap({"segmentation": polygons})


def points(polygon: list[float]) -> list[list[float]]:
    return [list(p) for p in zip(polygon[::2], polygon[1::2], strict=True)]


def write_voc(images: Path, annotations: Path, boxes: list = BOXES) -> None:
    """As labelImg does, which writes no file for an image without objects."""
    annotations.mkdir(exist_ok=True)
    for name in dict.fromkeys(n for n, _, _ in boxes):
        root = ET.Element("annotation")
        ET.SubElement(root, "folder").text = images.name
        ET.SubElement(root, "filename").text = name
        size = ET.SubElement(root, "size")
        for key, value in (("width", WIDTH), ("height", HEIGHT), ("depth", 3)):
            ET.SubElement(size, key).text = str(value)
        for label, (x, y, w, h) in [(label, box) for n, label, box in boxes if n == name]:
            item = ET.SubElement(root, "object")
            for key, value in (("name", label), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
                ET.SubElement(item, key).text = str(value)
            box = ET.SubElement(item, "bndbox")
            for key, value in (("xmin", x), ("ymin", y), ("xmax", x + w), ("ymax", y + h)):
                ET.SubElement(box, key).text = str(value)
        ET.ElementTree(root).write(annotations / f"{Path(name).stem}.xml", encoding="utf-8")


def yolo_lines(name: str, boxes: list, polygons: list) -> str:
    lines = []
    for _, label, (x, y, w, h) in (b for b in boxes if b[0] == name):
        values = [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]
        lines.append([NAMES.index(label), *(f"{v:.6f}" for v in values)])
    for _, label, parts in (p for p in polygons if p[0] == name):
        values = [v / (HEIGHT if n % 2 else WIDTH) for n, v in enumerate(parts[0])]
        lines.append([NAMES.index(label), *(f"{v:.6f}" for v in values)])
    return "".join(" ".join(map(str, line)) + "\n" for line in lines)


def write_yolo(labels: Path, boxes: list = BOXES, polygons: list = (), names: list[str] = PHOTOS) -> None:
    """Label files; `b.png` gets none, the others without objects an empty one."""
    labels.mkdir(parents=True, exist_ok=True)
    for name in names:
        text = yolo_lines(name, boxes, polygons)
        if text or name != "b.png":
            (labels / f"{Path(name).stem}.txt").write_text(text, encoding="utf-8")


def write_labelme(folder: Path, shapes: dict[str, list[dict]]) -> None:
    """One file for each image, as LabelMe 5 writes it."""
    for name in PHOTOS:
        content = {
            "version": "5.4.1", "flags": {}, "shapes": shapes.get(name, []), "imagePath": name, "imageData": None,
            "imageHeight": HEIGHT, "imageWidth": WIDTH,
        }  # fmt: skip
        (folder / f"{Path(name).stem}.json").write_text(json.dumps(content))


def labelme_shape(label: str, kind: str, shape_points: list, group: int | None = None, **more: object) -> dict:
    return {"label": label, "points": shape_points, "group_id": group, "shape_type": kind, "flags": {}, **more}


def via_entries(regions: dict[str, list[tuple[str, dict]]], version: int) -> dict:
    """VIA's table of images; version 1 numbers the regions."""
    entries = {}
    for name in PHOTOS:
        some: list | dict = [
            {"shape_attributes": shape, "region_attributes": {"kind": label}} for label, shape in regions.get(name, [])
        ]
        if version == 1:
            some = {str(i): region for i, region in enumerate(some)}
        entries[f"{name}1234"] = {"filename": name, "size": 1234, "regions": some, "file_attributes": {}}
    return entries


def cvat_xml(shapes: dict[str, str]) -> str:
    """An export of CVAT for images 1.1; `shapes` are XML elements by image."""
    labels = "".join(f"<label><name>{n}</name><attributes></attributes></label>" for n in reversed(NAMES))
    images = "".join(
        f'<image id="{i}" name="{name}" width="{WIDTH}" height="{HEIGHT}">{shapes.get(name, "")}</image>'
        for i, name in enumerate(PHOTOS)
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task><labels>{labels}'
        f"</labels></task></meta>{images}</annotations>"
    )


def cvat_mask(label: str, mask: np.ndarray) -> str:
    """CVAT's run lengths of the window that holds a mask."""
    ys, xs = np.nonzero(mask)
    left, top = xs.min(), ys.min()
    window = mask[top : ys.max() + 1, left : xs.max() + 1]
    flat = np.concatenate([[False], window.ravel()])
    runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)), [window.size]]))
    height, width = window.shape
    return (
        f'<mask label="{label}" source="manual" occluded="0" rle="{", ".join(map(str, runs))}" left="{left}" '
        f'top="{top}" width="{width}" height="{height}" z_order="0"></mask>'
    )


def label_studio_task(number: int, image: str, results: list[dict]) -> dict:
    return {
        "id": number,
        "data": {"image": image},
        "annotations": [{"id": number, "was_cancelled": False, "ground_truth": False, "result": results}],
        "predictions": [],
    }


def label_studio_result(kind: str, label: str, value: dict) -> dict:
    return {
        "id": "x1", "type": kind, "from_name": "label", "to_name": "image", "original_width": WIDTH,
        "original_height": HEIGHT, "image_rotation": 0, "value": {"rotation": 0, **value, kind: [label]},
    }  # fmt: skip


def percent(values: list[float]) -> list[float]:
    return [100 * v / (HEIGHT if n % 2 else WIDTH) for n, v in enumerate(values)]


def png_base64(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target
