"""Folders of images and label maps: pairs, classes, and what is told about folders that cannot be used."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from label_maps import write_pairs
from PIL import Image

from convmae_seg.colors import class_colors
from convmae_seg.datasets import ADE20K_CLASSES, find_pairs, register_ade20k, register_all
from convmae_seg.label_maps import read_label_map
from pretrain.common.errors import UserError


@pytest.fixture
def put_back(monkeypatch):
    """Registrations as they were before."""
    yield
    register_all("datasets")


def test_ade20k_classes():
    assert len(ADE20K_CLASSES) == len(set(ADE20K_CLASSES)) == 150
    assert ADE20K_CLASSES[:4] == ["wall", "building", "sky", "floor"] and ADE20K_CLASSES[-1] == "flag"
    assert all(name == name.strip() and "," not in name for name in ADE20K_CLASSES)


def test_ade20k_as_it_is_unpacked(tmp_path, put_back):
    for kind in ("images", "annotations"):
        (tmp_path / "ADEChallengeData2016" / kind / "validation").mkdir(parents=True)
    root = tmp_path / "ADEChallengeData2016"
    Image.new("RGB", (4, 1)).save(root / "images/validation/ADE_val_00000001.jpg")
    Image.fromarray(np.uint8([[0, 1, 150, 3]])).save(root / "annotations/validation/ADE_val_00000001.png")
    register_ade20k(tmp_path)
    (pair,) = DatasetCatalog.get("ade20k_sem_seg_val")
    assert pair["image_id"] == "ADE_val_00000001"
    metadata = MetadataCatalog.get("ade20k_sem_seg_val")
    assert read_label_map(pair["sem_seg_file_name"], metadata).tolist() == [[255, 0, 149, 2]]
    with pytest.raises(UserError, match=r"training does not exist; download http.*ADEChallengeData2016.zip, unzip it"):
        DatasetCatalog.get("ade20k_sem_seg_train")


def test_folders_below_folders_in_order(tmp_path):
    for name in ("b/2", "a/1", "a/0"):
        for kind, suffix in (("images", ".JPG"), ("labels", ".png")):
            path = tmp_path / kind / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (2, 2)).save(path)
    (tmp_path / "images" / ".hidden.jpg").write_text("")
    pairs = find_pairs(tmp_path / "images", tmp_path / "labels")
    assert [p["image_id"] for p in pairs] == ["a/0", "a/1", "b/2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r / "labels/1.png").unlink(), r"1 images have no label map of the same name in .*labels .*1\.jpg"),
        (lambda r: (r / "images/1.jpg").unlink(), r"1 label maps have no image of the same name in .*images .*1\.png"),
        (lambda r: Image.new("L", (2, 2)).save(r / "labels/1.tif"), "have the same name but for the suffix"),
        (lambda r: (r / "labels").rename(r / "other"), "Label folder .*labels does not exist; check the path"),
        (lambda r: [p.unlink() for p in (r / "labels").iterdir()], "labels holds no label maps"),
        (lambda r: [p.unlink() for p in (r / "images").iterdir()], "images holds no images"),
    ],
)
def test_folders_that_do_not_match(tmp_path, change, message):
    write_pairs(tmp_path / "data")
    change(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        find_pairs(tmp_path / "data/images", tmp_path / "data/labels")


def test_colours_are_distinct():
    colors = np.array(class_colors(150))
    assert len({tuple(c) for c in colors.tolist()}) == 150
    neighbours = np.abs(np.diff(colors, axis=0)).max(axis=1)
    assert neighbours.min() > 60
