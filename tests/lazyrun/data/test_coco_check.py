"""Each fault of a COCO data set gives one plain sentence."""

import copy
import json

import pytest
from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image
from PIL import ExifTags, Image

from lazyrun.data.coco_check import check_coco_json

POLYGON = [[1, 1, 9, 1, 9, 9]]
SOUND = {
    "images": [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in (1, 2)],
    "annotations": [
        {"id": i, "image_id": 1, "category_id": 7, "bbox": [1, 1, 8, 8], "area": 32, "segmentation": POLYGON}
        for i in (1, 2)
    ],
    "categories": [{"id": 7, "name": "seven"}],
}


@pytest.fixture
def check(tmp_path):
    """Writes the data set after `change(content)` and checks it."""
    for i in (1, 2):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{i}.png")

    def run(change=lambda content: None, **options):
        content = copy.deepcopy(SOUND)
        change(content)
        (tmp_path / "data.json").write_text(json.dumps(content))
        options = dict(training=True, masks=True) | options
        return check_coco_json("mine", str(tmp_path / "data.json"), str(tmp_path), **options)

    return run


def test_sound_data(check):
    report = check()
    assert report.faults == []
    assert str(report) == "mine: 2 images, 2 annotations, 1 categories, 1 images without annotation"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c["images"].clear(), "lists no images"),
        (lambda c: c["images"][1].update(id=1), "1 image ids used twice or missing (1)"),
        (lambda c: c["annotations"][1].update(id=1), "1 annotation ids used twice or missing (1)"),
        (lambda c: c["annotations"][1].update(image_id=5), "1 annotations of unknown images (2)"),
        (lambda c: c["annotations"][1].update(category_id=8), "1 category ids that no category has (8)"),
        (lambda c: c["images"][1].update(file_name="gone.png"), "1 image files missing (gone.png)"),
        (lambda c: c["images"][1].update(width=30), "2.png is 20x10, not 30x10"),
        (lambda c: c["images"][1].pop("height"), "1 images without file_name, width or height (2)"),
        (lambda c: c["annotations"][1].update(bbox=[1, 1, 30, 5]), "1 boxes outside their image (annotation 2"),
        (lambda c: c["annotations"][1].update(bbox=[1, 1, 3]), "1 annotations whose bbox is not four numbers (2)"),
        (lambda c: c["annotations"][1].pop("segmentation"), "1 annotations without segmentation under a mask head (2)"),
        (lambda c: c["annotations"].clear(), "there is no annotation to train on"),
        (lambda c: c.pop("categories"), "is not a COCO annotation file: it has no 'categories'"),
        (lambda c: c.update(images={}), "must be lists of objects"),
    ],
)
def test_faults(check, change, fault):
    (message,) = check(change).faults
    assert fault in message


def test_what_is_no_fault(check):
    assert not check(lambda c: c["annotations"][1].pop("segmentation"), masks=False).faults
    assert not check(lambda c: c["annotations"].clear(), training=False).faults
    assert not check(lambda c: c["annotations"][1].update(bbox=[13, 1, 8, 8])).faults  # one pixel over the edge
    encoded = {"size": [10, 20], "counts": [0, 200]}
    assert not check(lambda c: c["annotations"][1].update(segmentation=encoded)).faults
    (fault,) = check(lambda c: c["annotations"][1].update(segmentation=encoded), polygons=True).faults
    assert "1 single objects with run-length masks (2)" in fault and "instance_mask_format=bitmask" in fault
    report = check(lambda c: c["annotations"][1].update(bbox=[3, 3, 4, 0]))
    assert not report.faults and report.degenerate_boxes == 1


def test_files_that_are_not_there_or_not_json(tmp_path):
    (fault,) = check_coco_json("mine", str(tmp_path / "no.json"), str(tmp_path), training=True, masks=True).faults
    assert "no.json does not exist" in fault and "DETECTRON2_DATASETS" in fault
    (tmp_path / "cut.json").write_text('{"images": [')
    (fault,) = check_coco_json("mine", str(tmp_path / "cut.json"), str(tmp_path), training=True, masks=True).faults
    assert "is not a COCO annotation file" in fault
    (fault,) = check_coco_json("mine", str(tmp_path / "cut.json"), "/no/folder", training=True, masks=True).faults
    assert "image folder /no/folder does not exist" in fault


def test_damaged_image(check, tmp_path):
    (tmp_path / "2.png").write_text("no image")
    (fault,) = check().faults
    assert "1 image files that cannot be read (2.png)" in fault


@pytest.mark.parametrize("orientation", range(1, 10))
def test_photos_are_checked_as_they_are_read(check, tmp_path, orientation):
    """Photos on their side are turned upright when they are read; the check must accept what the loader does."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (20, 10)).save(tmp_path / "photo.jpg", exif=exif)
    for width, height in ((20, 10), (10, 20)):
        record = {"file_name": str(tmp_path / "photo.jpg"), "width": width, "height": height}
        report = check(lambda c, record=record: c["images"][1].update(record))
        try:
            check_image_size(record, read_image(record["file_name"]))
        except SizeMismatchError:
            (fault,) = report.faults
            assert f"photo.jpg is {height}x{width}, not {width}x{height}" in fault
        else:
            assert not report.faults


def test_depth_of_images(check, tmp_path):
    Image.new("I;16", (20, 10)).save(tmp_path / "1.png")
    assert not check().faults
    Image.new("F", (20, 10)).save(tmp_path / "2.png", format="TIFF")
    (fault,) = check().faults
    assert (
        "1 image files of 32 bits a pixel, whose value range is undefined (2.png); save them with 8 or 16 bits" in fault
    )
