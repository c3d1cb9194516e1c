"""What is given as annotation file: COCO in any encoding, or a sentence on what it is instead."""

import json

import pytest
from tiny_coco import content

from lazyrun.data.coco.reading import read_coco_json
from pretrain.common.errors import UserError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(tmp_path, encoding):
    data = content(2)
    data["categories"][0]["name"] = "Prüfling"
    (tmp_path / "a.json").write_bytes(json.dumps(data, ensure_ascii=False).encode(encoding))
    assert read_coco_json(tmp_path / "a.json") == tuple(data[key] for key in ("images", "annotations", "categories"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.json", '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "holds detections"),
        ("v.json", '{"a.jpg12": {"filename": "a.jpg", "regions": []}}', "VGG Image Annotator"),
        ("p.json", '{"_via_settings": {}, "_via_img_metadata": {}}', "VGG Image Annotator"),
        ("l.json", '{"version": "5", "shapes": [], "imagePath": "a.jpg"}', "LabelMe"),
        ("s.json", '[{"id": 1, "data": {}, "annotations": []}]', "Label Studio"),
        ("b.json", '[{"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4]}]', "a bare list of annotations"),
        ("a.xml", "<annotation><filename>a.jpg</filename></annotation>", "Pascal VOC"),
        ("c.xml", '<?xml version="1.0"?>\n<annotations><version>1.1</version></annotations>', "CVAT"),
        ("t.csv", "filename,width,height,class\na.jpg,1,1,x\n", "a CSV table"),
        ("t.json", "filename,width,height,class\na.jpg,1,1,x\n", "a CSV table"),
        ("y.txt", "0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n", "YOLO"),
        ("e.json", "", "it is empty"),
        ("z.json", "PK\x03\x04", "a ZIP archive"),
        ("n.json", "[" * 100_000, "nested too deeply"),
        ("i.json", '{"images": []}', "it has no 'annotations'"),
        ("7.json", "7", "it holds 7 alone"),
    ],
)
def test_other_files_are_named(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"^is not a COCO annotation file: ") as error:
        read_coco_json(tmp_path / name)
    assert said in str(error.value) and "indices" not in str(error.value)
