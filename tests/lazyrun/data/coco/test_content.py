"""Oddities of COCO files: mended and counted, or a sentence with the annotation and the way out."""

import copy
import math

import pytest
from tiny_coco import content, run_lengths, write

from lazyrun.data.coco.content import clean, load
from pretrain.common.errors import UserError

LISTS = ("images", "annotations", "categories")
SOUND = content(3)


def cleaned(change=lambda data: None):
    data = copy.deepcopy(SOUND)
    change(data)
    before = repr(data)
    result = clean(*(data[key] for key in LISTS))
    assert repr(data) == before  # what is given stays as it is
    return result


def of_all(name, **values):
    """A change of all entries of a list; callables get the entry."""

    def change(data):
        for entry in data[name]:
            entry.update({k: v(entry) if callable(v) else v for k, v in values.items()})

    return change


def of_first(**values):
    return lambda data: data["annotations"][0].update(values)


def test_sound_content_stays():
    result = cleaned()
    assert {key: getattr(result, key) for key in LISTS} == SOUND
    assert not result.mended and not result.faults and not result.doubts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_all("images", width=64.0), "3 widths and heights written as text or with a decimal point (64.0 of image 1"),
        (
            of_all("images", height="48"),
            "3 widths and heights written as text or with a decimal point ('48' of",
        ),
        (of_all("annotations", iscrowd=None), "8 values of iscrowd written otherwise than 0 or 1 (annotation 1: None"),
        (of_all("annotations", iscrowd="0"), "8 values of iscrowd written otherwise"),
        (of_all("annotations", category_id=lambda a: float(a["category_id"])), "3 category ids of annotations written"),
        (of_all("annotations", category_id=lambda a: str(a["category_id"])), "3 category ids of annotations written"),
        (of_all("annotations", segmentation=lambda a: a["segmentation"][0]), "8 polygons written as one flat list"),
    ],
)
def test_what_is_written_otherwise_is_mended(change, said):
    result = cleaned(change)
    assert {key: getattr(result, key) for key in LISTS} == SOUND
    (sentence,) = result.mended.sentences()
    assert sentence.startswith(said) and not result.faults


@pytest.mark.parametrize(
    "change",
    [
        of_all("annotations", image_id=lambda a: float(a["image_id"])),
        of_all("annotations", image_id=lambda a: str(a["image_id"])),
        of_all("images", id=lambda i: float(i["id"])),
        of_all("annotations", ignore=0),
        of_all("annotations", ignore=None),
    ],
)
def test_what_needs_no_word(change):
    result = cleaned(change)
    assert [(a["image_id"], a["bbox"]) for a in result.annotations] == [
        (a["image_id"], a["bbox"]) for a in SOUND["annotations"]
    ]
    assert all(type(a["image_id"]) is int for a in result.annotations)
    assert all(type(i["id"]) is int for i in result.images) and not result.faults


@pytest.mark.parametrize(
    "new", [lambda i: f"img_{i}", lambda i: str(i), lambda i: 2**53 + i, lambda i: "é" if i == 1 else i]
)
def test_image_ids_that_cannot_be_kept(new):
    def change(data):
        for image in data["images"]:
            image["id"] = new(image["id"])
        for annotation in data["annotations"]:
            annotation["image_id"] = new(annotation["image_id"])

    result = cleaned(change)
    assert [i["id"] for i in result.images] == [1, 2, 3]
    assert [i["source_id"] for i in result.images] == [new(1), new(2), new(3)]
    assert [a["image_id"] for a in result.annotations] == [a["image_id"] for a in SOUND["annotations"]]
    assert "image ids that are no whole numbers" in result.mended.sentences()[0]


def test_names_that_are_numbers():
    result = cleaned(of_all("images", file_name=lambda i: i["id"]))
    assert [i["file_name"] for i in result.images] == ["1", "2", "3"]
    assert result.mended.sentences()[0].startswith("3 file names that are numbers (1, 2, 3)")


def test_ignored_objects_are_crowds():
    result = cleaned(of_first(ignore=1))
    assert [a["iscrowd"] for a in result.annotations] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert "ignore" not in result.annotations[0] and "1 annotations to be ignored" in result.mended.sentences()[0]


def test_boxes_without_area_are_left_out():
    result = cleaned(of_first(bbox=[0, 0, 0, 0], segmentation=[]))
    assert len(result.annotations) == 7 and result.without_area == 1 and not result.faults


@pytest.mark.parametrize("segmentation", [[[35, 20, 35, 28]], [[35, 20]], [[]]])
def test_masks_without_area(segmentation):
    result = cleaned(of_first(segmentation=segmentation))
    assert [a["id"] for a in result.annotations] == [2, 3, 4, 5, 6, 7, 8] and [a["id"] for a in result.left_out] == [1]
    assert "1 objects without a polygon of three points (annotation 1); left out" in result.mended.sentences()[-1]
    result = cleaned(of_all("annotations", segmentation=segmentation))  # no masks at all: the boxes are meant
    assert len(result.annotations) == 8 and not result.left_out
    assert not any("segmentation" in a for a in result.annotations)


def test_run_lengths_stay_as_they_are():
    result = cleaned(of_all("annotations", segmentation=run_lengths))
    assert [a["segmentation"] for a in result.annotations] == [run_lengths(a) for a in SOUND["annotations"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_first(id=[1]), "1 annotation ids used twice or missing (None)"),
        (lambda d: d["annotations"][0].pop("id"), "1 annotation ids used twice or missing (None)"),
        (of_first(image_id=[1]), "1 annotations of unknown images (1)"),
        (of_first(image_id={"a": 1}), "1 annotations of unknown images (1)"),
        (of_first(category_id=[1]), "1 category ids that no category has ([1])"),
        (of_first(category_id="disc"), "1 category ids that no category has (disc)"),
        (of_first(iscrowd=2), "1 annotations whose iscrowd is neither 0 nor 1 (annotation 1: 2)"),
        (of_first(iscrowd=[]), "1 annotations whose iscrowd is neither 0 nor 1 (annotation 1: [])"),
        (of_first(bbox=[1, 2, float("nan"), 4]), "not [1, 2, nan, 4]."),
        (of_first(bbox=["1", "2", "3", "4"]), "1 annotations whose bbox is not four numbers (1)"),
        (of_first(bbox=[1, 2, True, 4]), "1 annotations whose bbox is not four numbers (1)"),
        (of_first(segmentation=[[1, 1, 1e9, 1, 9, 9]]), "cannot be used (annotation 1: the coordinate 1000000000.0"),
        (lambda d: d["images"][0].update(id=None), "1 image ids used twice or missing (None)"),
        (lambda d: d["images"][0].update(width="wide"), "1 images without file_name, width or height (1)"),
        (lambda d: d["images"][0].update(width=-5), "1 images without file_name, width or height (1)"),
        (lambda d: d["categories"][1].update(name="disc"), "1 category names used twice ('disc' of 1 and 2)"),
    ],
)
def test_faults_name_the_entry(change, said):
    with pytest.raises(UserError, match=r"^mine\.json: ") as error:
        cleaned(change).check("mine.json")
    assert said in str(error.value) and "\n" not in str(error.value)


def relative(a):
    x, y, w, h = a["bbox"]
    return [x / 64, y / 48, w / 64, h / 48]


def corners(a):
    x, y, w, h = a["bbox"]
    return [x, y, x + w, y + h]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_all("annotations", bbox=relative), "8 boxes whose coordinates lie between 0 and 1"),
        (of_all("annotations", bbox=corners), "these look like corners"),
        (of_first(bbox=[60, 1, 8, 8]), "1 boxes outside their image (annotation 1: [60, 1, 8, 8] in 64x48)"),
        (of_all("annotations", bbox=[0, 40, 4, 4]), "masks outside of their boxes"),
        (lambda d: d["images"][1].update(file_name="1.png"), "1 file names used by several images (1.png)"),
    ],
)
def test_doubts(change, said):
    result = cleaned(change)
    (sentence,) = result.doubts.sentences()
    assert said in sentence and not result.faults


@pytest.mark.parametrize("name", ["disc", "toys"])
def test_root_category_of_roboflow(name):
    def change(data):
        for category in data["categories"]:
            category["supercategory"] = "toys"
        data["categories"].insert(0, {"id": 0, "name": name, "supercategory": "none"})

    result = cleaned(change)
    assert [c["id"] for c in result.categories] == [1, 2, 3]
    assert "1 root categories without objects (0" in result.mended.sentences()[0] and not result.faults


def test_a_file_is_read_once_until_it_changes(tmp_path):
    file = write(tmp_path, SOUND)
    assert load(file) is load(str(file))
    write(tmp_path, content(5))
    assert len(load(file).images) == 5


def test_areas_that_are_no_numbers_are_measured():
    for area in (math.nan, "12", None, -3):
        result = cleaned(of_first(area=area))
        assert "area" not in result.annotations[0] and "1 areas that are no numbers" in result.mended.sentences()[0]
