"""Counts, sizes and odd objects of small sets, against values worked out by hand."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from lazyrun.data.inspection.figures import set_figures
from lazyrun.data.inspection.model_input import ModelInput, model_input
from lazyrun.data.inspection.objects import extreme_objects, findings_of, odd_objects
from lazyrun.data.inspection.table import class_rows, rows, text_table

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 8, "name": "emu"}]
IMAGES = [
    {"id": n, "file_name": f"{n}.png", "width": width, "height": height}
    for n, (width, height) in enumerate([(100, 50), (100, 50), (200, 100)], start=1)
]


def annotation(number, image, box, category=3, **more):
    return {"id": number, "image_id": image, "bbox": box, "category_id": category, **more}


OBJECTS = [
    annotation(1, 1, [0, 0, 10, 40]),
    annotation(2, 1, [20, 0, 20, 20], 7),
    annotation(3, 1, [50, 0, 10, 10], segmentation=[[50, 0, 60, 0, 60, 10]]),
    annotation(4, 3, [0, 0, 200, 100], 7, iscrowd=1),
]
SMALL = ModelInput(50, 50, (16, 32), 2)
"""Halves the first images, and quarters the third."""


def test_figures_and_table():
    figures = set_figures(IMAGES, OBJECTS, CATEGORIES, {}, without_area=2)
    assert figures.per_image.tolist() == [3, 0, 0] and figures.crowds == 1
    assert figures.objects_of == {"cat": 2, "dog": 1, "emu": 0} and figures.images_of == {"cat": 1, "dog": 1, "emu": 0}
    assert figures.sides.tolist() == [20, 20, 10]
    table = {label: value for label, (value,) in rows({"training": figures}, SMALL)}
    assert table == {
        "images": "3",
        "without object": "2 (66.7 %)",
        "image sizes": "100x50 to 200x100",
        "most frequent size": "100x50, 2 (66.7 %)",
        "pixels": "? 3",
        "objects": "3",
        "with masks": "box alone 2, polygons 1",
        "crowds": "1",
        "boxes without area, left out": "2",
        "classes": "3",
        "objects per image": "median 0, mean 1.0, 3 at most",
        "sides of objects, pixels": "median 20, 90 % from 11 to 20",
        "small / medium / large": "100 % / 0 % / 0 %",
        "sides at the model (longer side 50)": "median 10, 90 % from 5.5 to 10",
        "below half of the least anchor (16)": "1 (33.3 %)",
        "above twice the largest anchor (32)": "0",
        "images of more than 2 objects": "1",
    }
    empty = set_figures([], [], CATEGORIES[:1], {})
    text = text_table({"training": figures, "evaluation": empty}, SMALL)
    assert "class cat" in text and "2 in 1 images" in text and "evaluation" in text
    assert class_rows({"training": figures, "evaluation": empty})[1] == ("dog", [(1, 1), None])


def test_odd_objects():
    objects = [
        annotation("a", 1, [0, 0, 10, 40]),
        annotation("b", 1, [0, 0, 10, 39]),
        annotation("c", 1, [0, 0, 10, 40], 7),
        annotation("d", 2, [0, 0, 100, 50], iscrowd=1),
        annotation("e", 2, [-2, 0, 102, 50]),
        annotation("f", 2, [5, 5, 4, 3]),
        annotation("g", 3, [0, 50, 150, 10]),
        annotation("h", 3, [10, 10, 60, 60], segmentation=[[100, 50, 120, 50, 120, 60]]),
        annotation("i", 3, [10, 10, 60, 60], 7, segmentation=[[10, 10, 70, 10, 70, 70]]),
        annotation("j", 3, [0, 0, 20, 10], segmentation={"size": [100, 200], "counts": [0, 50, 19950]}),
    ]
    found = findings_of(odd_objects(IMAGES, objects, SMALL))
    assert {f.kind: f.cases for f in found} == {
        "objects annotated twice": ["1.png: annotation a and b: IoU 0.97"],
        "boxes that differ from their masks": ["3.png: annotation h: IoU 0.00", "3.png: annotation j: IoU 0.04"],
        "boxes that cover the whole image": ["2.png: annotation e: 102x50 in 100x50"],
        "boxes that reach beyond their image": ["2.png: annotation e: by 2 pixels"],
        "tiny objects": [
            "2.png: annotation f: 4x3, at the model 2x1.5",
            "3.png: annotation j: 20x10, at the model 5x2.5",
        ],
        "drawn-out boxes": ["3.png: annotation g: 150x10"],
        "images with more objects than are detected": [
            "3.png: 4 objects, 2 detections at most",
            "1.png: 3 objects, 2 detections at most",
        ],
    }
    assert not odd_objects(IMAGES, OBJECTS, ModelInput()) and not odd_objects([], [], SMALL)


def test_extremes():
    found = extreme_objects(IMAGES, OBJECTS, 1)
    assert {kind: [a["id"] for a in cases[0].annotations] for kind, cases in found.items()} == {
        "most objects": [], "smallest objects": [3], "largest objects": [1], "most drawn-out objects": [1],
    }  # fmt: skip
    assert extreme_objects(IMAGES, [], 3) == {}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"data": {"image_size": 64}}, (64, 64, ())),
        ({"model": {"anchor_generator": {"sizes": [[32, 40.5], [32]]}}}, (None, 0, (32, 40.5))),
        ({"model": {"proposal_generator": {"anchor_generator": {"sizes": "${data.image_size}"}}}}, (9, 9, (9,))),
    ],
)
def test_what_a_config_says(config, expected):
    cfg = OmegaConf.merge({"model": {}, "data": {"image_size": 9} if "model" in config else {}}, config)
    if expected[0] is None:
        cfg.data = {}
    found = model_input(cfg)
    assert (found.short_side, found.max_size, found.anchors) == expected and found.max_detections == 100


def test_resizing_is_that_of_the_test_loader():
    resize = {"short_edge_length": [640, 800], "max_size": 1333}
    cfg = OmegaConf.create({"model": {}, "dataloader": {"test": {"mapper": {"augmentations": [{}, resize]}}}})
    found = model_input(cfg)
    assert (found.short_side, found.max_size) == (800, 1333)
    assert found.scale(np.array([[400, 800], [100, 1000]])).tolist() == [1333 / 800, 1.333]
    assert ModelInput(None, 0).scale(np.array([[4, 8]])).tolist() == [1]
