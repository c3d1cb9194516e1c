"""The mapper is detectron2's but for grey images of 16 bits, and files that cannot be used."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import ExifTags, Image
from shapes import CONFIG, REPO

from lazyrun.config.loading import load_config
from lazyrun.data.loader import seeded
from lazyrun.data.mapper import InstanceMapper
from lazyrun.inference.predictor import read_rgb
from pretrain.common.errors import UserError


def sample(path) -> dict:
    box = {"bbox": [4, 4, 20, 24], "bbox_mode": 1, "category_id": 0, "segmentation": [[4, 4, 24, 4, 24, 28]]}
    return {"file_name": str(path), "width": 48, "height": 32, "image_id": 7, "annotations": [box]}


@pytest.mark.parametrize("split", ["train", "test"])
def test_equals_detectron2_s(tmp_path, split):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # on its side
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    node = load_config(str(REPO / CONFIG), []).dataloader[split].mapper
    assert node._target_ is InstanceMapper
    outputs = []
    for target in (InstanceMapper, DatasetMapper):
        node._target_ = target
        with seeded(1):
            outputs.append(instantiate(node)(sample(tmp_path / "a.jpg")))
    ours, expected = outputs
    assert ours.keys() == expected.keys() and torch.equal(ours["image"], expected["image"])
    if split == "train":
        assert torch.equal(ours["instances"].gt_boxes.tensor, expected["instances"].gt_boxes.tensor)
        assert len(ours["instances"].gt_masks) == 1


def test_sixteen_bits_are_what_eight_bits_are(tmp_path):
    grey = np.random.default_rng(0).integers(0, 255, (32, 48), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    mapper = instantiate(load_config(str(REPO / CONFIG), []).dataloader.test.mapper)
    images = [mapper(sample(tmp_path / f"{bits}.png"))["image"] for bits in (8, 16)]
    assert torch.equal(*images) and images[0].float().std() > 50
    assert np.array_equal(read_rgb(tmp_path / "16.png"), np.repeat(grey[..., None], 3, axis=2))


def test_files_that_cannot_be_used(tmp_path):
    mapper = instantiate(load_config(str(REPO / CONFIG), []).dataloader.train.mapper)
    Image.new("F", (48, 32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif cannot be read as an image: its pixels have 32 bits"):
        mapper(sample(tmp_path / "a.tif"))
    with pytest.raises(OSError, match=r"a\.tif cannot be read as an image: its pixels have 32 bits"):
        read_rgb(tmp_path / "a.tif")
    (tmp_path / "b.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"b\.jpg cannot be read as an image: cannot identify"):
        mapper(sample(tmp_path / "b.jpg"))
    Image.new("RGB", (48, 48)).save(tmp_path / "c.jpg")
    with pytest.raises(UserError, match=r"Mismatched image shape for image .*c\.jpg, got \(48, 48\)"):
        mapper(sample(tmp_path / "c.jpg"))


def test_photos_are_turned_upright_as_detectron2_does(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    pictures = {"RGB": Image.fromarray(pixels), "L": Image.fromarray(pixels[..., 0])}
    pictures["P"] = pictures["RGB"].convert("P")
    for mode, picture in pictures.items():
        for orientation in range(10):  # 1 to 8 are known; 0 and 9 mean nothing
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = orientation
            path = tmp_path / f"{mode}{orientation}.png"
            picture.save(path, exif=exif)
            assert np.array_equal(read_rgb(path), detectron2_read_image(str(path), "RGB")), (mode, orientation)


def test_damaged_exif_data_leave_the_image_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08nonsense")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), pixels)


def test_a_photo_is_turned_although_another_entry_of_its_exif_data_is_damaged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = bytearray(exif.tobytes())
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=bytes(data[:-4]) + b"\xff\xff\xff\xff")  # no next directory
    assert read_rgb(tmp_path / "a.png").shape == (40, 24, 3)
