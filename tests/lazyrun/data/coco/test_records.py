"""Sound files give what detectron2's own reader gives; odd ones what the mended file would."""

import copy

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from tiny_coco import content, register, run_lengths, write

from lazyrun.data.coco.records import register_coco
from pretrain.common.errors import UserError


@pytest.mark.parametrize("masks", ["polygons", "lists", "text"])
def test_equals_detectron2_s(tmp_path, masks):
    data = content()
    data["images"].reverse()
    data["categories"].reverse()
    for number, annotation in enumerate(data["annotations"]):
        if masks != "polygons":
            annotation["segmentation"] = run_lengths(annotation, text=masks == "text")
        if number % 3 == 0:
            annotation["keypoints"] = [1, 2, 2, 3, 4, 1]
    file = write(tmp_path, data)
    expected = load_coco_json(str(file), str(tmp_path), "expected")
    assert DatasetCatalog.get(register(file)) == expected
    ours, theirs = MetadataCatalog.get(str(file)), MetadataCatalog.get("expected")
    for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
        assert ours.get(key) == theirs.get(key)


def test_oddities_change_nothing(tmp_path):
    data = content()
    expected = DatasetCatalog.get(register(write(tmp_path, data)))
    odd = copy.deepcopy(data)
    for image in odd["images"]:
        image["width"] = float(image["width"])
    for annotation in odd["annotations"]:
        annotation |= {"id": f"uuid-{annotation['id']}", "iscrowd": None, "image_id": float(annotation["image_id"])}
        annotation["segmentation"] = annotation["segmentation"][0]
    odd["annotations"] += [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 0, 0], "segmentation": []},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 1]]},
    ]
    assert DatasetCatalog.get(register(write(tmp_path, odd, "odd.json", "utf-16"))) == expected


def test_faults_are_refused_without_a_check(tmp_path):
    data = content()
    data["annotations"][3]["segmentation"] = [[1, 1, 1e9, 1, 9, 9]]
    file = write(tmp_path, data)
    with pytest.raises(UserError, match=r"data\.json: 1 annotations whose segmentation cannot be used \(annotation 4"):
        register(file)
    register_coco("gone", str(tmp_path / "gone.json"), str(tmp_path))
    with pytest.raises(UserError, match=r"gone\.json cannot be read: No such file"):
        DatasetCatalog.get("gone")
