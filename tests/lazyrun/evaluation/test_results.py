"""Ground truth in any format, and results that are matched with it by the names of files and classes."""

import json
from pathlib import Path

import pytest
from layouts import BOXES, NAMES, PHOTOS, coco, write_photos, write_voc, write_yolo

from lazyrun.data.formats import read_dataset
from lazyrun.data.splits import write_coco
from lazyrun.evaluation import truth as truth_module
from lazyrun.evaluation.analysis import evaluate, find_errors
from lazyrun.evaluation.results import LISTING, match_results
from lazyrun.evaluation.truth import Truth, image_ids, read_listed, read_truth, use_ids_of
from pretrain.common.errors import UserError

SMALL = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 100} for i in (1, 2)],
    "categories": [{"id": 7, "name": "cat"}],
    "annotations": [],
}

CLASS_IDS = {"kite": 40, "coin": 50, "moon": 60}
"""Of a model that knows a class which the annotations lack."""


@pytest.fixture
def voc(tmp_path) -> Path:
    write_voc(write_photos(tmp_path / "photos"), tmp_path / "photos")
    return tmp_path / "photos"


def write_results(folder: Path, names: list[str], file_name=str, boxes=BOXES) -> Path:
    """Perfect detections of boxes, with ids of their own and a listing."""
    folder.mkdir(exist_ok=True)
    ids = {name: 700 - n for n, name in enumerate(names)}
    results = [
        {"image_id": ids[name], "category_id": CLASS_IDS[label], "bbox": box, "score": 1.0}
        for name, label, box in boxes
        if name in ids
    ]
    listing = {
        "images": [{"id": i, "file_name": file_name(name)} for name, i in ids.items()],
        "categories": [{"id": i, "name": name} for name, i in CLASS_IDS.items()],
    }
    (folder / LISTING).write_text(json.dumps(listing))
    (folder / "results.json").write_text(json.dumps(results))
    return folder / "results.json"


def test_results_are_matched_by_name_in_any_format(tmp_path, voc):
    """The same figures for VOC, YOLO, and the COCO file made of them, whose ids of images and classes differ."""
    path = write_results(tmp_path / "run", ["été.JPG", "a 1.jpg"], lambda name: f"/elsewhere/photos/{name}")
    write_coco(read_dataset(voc), tmp_path / "voc.json")
    (tmp_path / "turned.json").write_text(json.dumps(coco() | {"images": coco()["images"][::-1]}))
    yolo = write_photos(tmp_path / "yolo" / "photos")
    write_yolo(yolo, BOXES)
    (yolo / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    written, turned = tmp_path / "voc.json", tmp_path / "turned.json"
    for annotations, images in ((voc, None), (written, None), (written, voc), (turned, voc), (yolo, None)):
        truth = read_truth(annotations, images)
        data, results = match_results(path, truth)
        assert (truth.root / data["images"][0]["file_name"]).is_file()
        assert [c["name"] for c in data["categories"]] == ["kite", "coin", "moon"]
        assert len(data["images"]) == 2 and len(data["annotations"]) == 3, annotations
        evaluation = evaluate(data, results, "bbox")
        assert evaluation.summary["AP"] == pytest.approx(100) and evaluation.class_count["moon"] == 0
        assert sum(e.errors for e in find_errors(data, results, 0.5)) == 0


def test_the_images_that_were_looked_at(tmp_path, voc, caplog):
    data, _ = match_results(write_results(tmp_path / "run", ["a 1.jpg"]), read_truth(voc))
    assert [i["file_name"] for i in data["images"]] == ["a 1.jpg"] and len(data["annotations"]) == 2
    assert "1 of 2 images of" in caplog.text


def test_classes_that_the_results_do_not_know(tmp_path, voc, caplog):
    path = write_results(tmp_path / "run", ["a 1.jpg"])
    listing = json.loads((path.parent / LISTING).read_text())
    listing["categories"] = [{"id": 40, "name": "kite"}]
    (path.parent / LISTING).write_text(json.dumps(listing))
    path.write_text(json.dumps([r for r in json.loads(path.read_text()) if r["category_id"] == 40]))
    data, results = match_results(path, read_truth(voc))
    assert len(data["annotations"]) == len(results) == 1 and "objects of coin are left out" in caplog.text
    listing["categories"] = [{"id": 40, "name": "Kite"}]
    (path.parent / LISTING).write_text(json.dumps(listing))
    with pytest.raises(UserError, match=r"of other classes \(Kite\) than .*\(coin, kite\): not one has the same name"):
        match_results(path, read_truth(voc))


@pytest.mark.parametrize(
    ("names", "images", "message"),
    [
        (["gone.jpg"], ["a.jpg"], r"is of other images: gone\.jpg is not among those of truth"),
        (["x/a.jpg"], ["y/a.jpg"], r"x/a\.jpg is not among"),
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"], r"a\.jpg may be any of several in truth"),
        (["/z/x/a.jpg"], ["x/a.jpg", "y/a.jpg"], None),
        (["y/x/a.jpg"], ["x/a.jpg", "a.jpg"], None),
        (["a.jpg"], ["a.jpg"], None),
        (["/z/a.jpg"], ["/z/x/../y/../a.jpg", "a.jpg"], None),
    ],
)
def test_matching_of_paths(tmp_path, names, images, message):
    data = {"images": [{"id": i, "file_name": name} for i, name in enumerate(images)], "annotations": []}
    truth = Truth(Path("truth"), data | {"categories": [{"id": 1, "name": "coin"}]}, tmp_path)
    path = write_results(tmp_path / "run", names, boxes=[(names[0], "coin", [1, 1, 2, 2])])
    if message is None:
        assert match_results(path, truth)[1][0]["image_id"] == 0
    else:
        with pytest.raises(UserError, match=message):
            match_results(path, truth)


def test_names_that_come_in_every_folder_are_compared_with_few_others(tmp_path, monkeypatch):
    compared, agreeing = [], truth_module._agreeing
    monkeypatch.setattr(truth_module, "_agreeing", lambda one, other: compared.append(one) or agreeing(one, other))
    names = [f"clip{clip}/{frame:06d}.jpg" for clip in range(50) for frame in range(2)]
    data = {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)], "categories": []}
    found = image_ids([tmp_path / name for name in names], Truth(Path("truth"), data, tmp_path))
    assert list(found.values()) == list(range(100))
    assert len(compared) == 100


def test_a_listing_of_another_kind_is_passed_over(tmp_path, voc):
    path = write_results(tmp_path / "run", PHOTOS)
    (path.parent / LISTING).write_text('{"images": 5}')
    with pytest.raises(UserError, match=r"is of another data set: its image_id \d+ is not among"):
        match_results(path, read_truth(voc))


def test_ids_for_predictions(tmp_path, voc, caplog):
    files = [voc / "été.JPG", voc / "a 1.jpg"]
    assert list(image_ids(files, read_listed(voc)).values()) == [2, 1]
    content = {"images": [{"id": "first", "file_name": "a 1.jpg"}, {"id": 2.5, "file_name": "photos/été.JPG"}]}
    (tmp_path / "test.json").write_text(json.dumps(content))  # of a test set: no annotations, no classes
    truth = read_listed(tmp_path / "test.json")
    assert list(image_ids(files, truth).values()) == [2.5, "first"]
    known = [{"id": 1, "name": "kite"}, {"id": 2, "name": "coin"}]
    assert use_ids_of(truth, known) == known
    assert use_ids_of(read_listed(voc), known) == [{"id": 2, "name": "kite"}, {"id": 1, "name": "coin"}]
    assert use_ids_of(read_listed(voc), [*known, {"id": 3, "name": "moon"}])[0]["id"] == 1
    assert "has no class 'moon': class ids are those of the weights" in caplog.text
    with pytest.raises(UserError, match=r"b\.png is not among those of"):
        image_ids([voc / "b.png"], truth)
    with pytest.raises(UserError, match="does not exist"):
        read_listed(tmp_path / "gone")
    for images in ([{"id": 1}], [{"id": [1], "file_name": "a.jpg"}], 5):
        (tmp_path / "test.json").write_text(json.dumps({"images": images}))
        with pytest.raises(UserError, match="is not a COCO annotation file"):
            read_listed(tmp_path / "test.json")


def detection(image: object, category: int) -> dict:
    return {"image_id": image, "category_id": category, "bbox": [0, 10, 40, 40], "score": 1}


def one_annotation(**changes: object) -> str:
    annotation = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 4], **changes}
    lists = {"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 7, "name": "cat"}]}
    return json.dumps({**lists, "annotations": [annotation]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not a JSON file"),
        ("{}", "is not a COCO results file"),
        ("[]", "holds no detections"),
        ('[{"score": 1}]', "one of its detections has no image_id, category_id"),
        (json.dumps([detection(5, 7)]), "is of another data set: its image_id 5 is not among"),
        (json.dumps([detection(1, 1)]), "is of another data set: its category_id 1 is not among"),
        (json.dumps([detection([1], 1)]), "an image_id or category_id is neither a number nor a text"),
    ],
)
def test_bad_results(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        match_results(path, Truth(tmp_path / "truth.json", SMALL, tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("[]", "is not a COCO annotation file"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "one of its images has no file_name"),
        (one_annotation(bbox=[1, 2, 3]), r"the bbox \[1, 2, 3\] is not four numbers"),
        (one_annotation(image_id=5), "the image_id 5 is not among its images"),
        (one_annotation(category_id=None), "one of its annotations has no category_id"),
        ('{"images": [], "annotations": [], "categories": []}', "no"),
    ],
)
def test_bad_annotations(tmp_path, content, message):
    path = tmp_path / "truth.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_truth(path, tmp_path)
