"""Training images larger than the square that the model pads to: resized by the tiny configs, refused elsewhere."""

import itertools

import pytest
import torch
from custom import write_custom
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import transforms as T
from PIL import Image
from shapes import CONFIG, REPO, SMALL

from lazyrun.config.custom_data import use_custom_data
from lazyrun.config.loading import load_config
from lazyrun.config.resolve import resolve_config
from lazyrun.data.loader import seeded
from lazyrun.data.padding import check_training_images
from lazyrun.modeling.build import build_model
from pretrain.common.errors import UserError

MIMDET = "projects/MIMDet/configs/shapes/mimdet_tiny.py"
PUBLISHED = "projects/ConvMAEDet/configs/COCO/mask_rcnn_vitdet_convmae_b_25ep.py"


def load(config=CONFIG, *options):
    cfg = load_config(str(REPO / config), [*SMALL, *options])
    return cfg


def without_resizing():
    cfg = load()
    cfg.dataloader.train.mapper.augmentations = list(cfg.dataloader.train.mapper.augmentations)[:-1]
    return cfg


def photo(folder, width=200, height=150):
    Image.effect_noise((width, height), 80).convert("RGB").save(folder / "photo.png")
    box = {"bbox": [20, 30, 100, 90], "bbox_mode": 1, "category_id": 0}
    box["segmentation"] = [[20, 30, 120, 30, 120, 120]]
    return {"file_name": str(folder / "photo.png"), "width": width, "height": height, "annotations": [box]}


@pytest.mark.parametrize("config", [CONFIG, MIMDET])
def test_the_tiny_configs_resize_photos(tmp_path, config):
    cfg = load(config) if config == CONFIG else load_config(str(REPO / config))
    record = photo(tmp_path)
    check_training_images(cfg, [record])
    sample = instantiate(cfg.dataloader.train.mapper)(record)
    assert sample["image"].shape == (3, 48, 64)
    (box,) = sample["instances"].gt_boxes.tensor
    assert (box[2:] - box[:2]).tolist() == pytest.approx([32, 28.8], abs=0.3)


def test_the_demos_images_stay_as_they_were(shapes, tmp_path):
    """The last augmentation changes nothing of what has the size already, nor what is drawn before it."""
    ours, before = load(CONFIG, *write_custom(shapes, tmp_path)), without_resizing()
    use_custom_data(ours, training=True)
    dataset = instantiate(ours.dataloader.train.dataset)
    mappers = [instantiate(cfg.dataloader.train.mapper) for cfg in (ours, before)]
    for draw, record in enumerate(dataset * 3):
        samples = []
        for mapper in mappers:
            with seeded(0, draw):
                samples.append(mapper(record))
        one, two = samples
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["instances"].gt_boxes.tensor, two["instances"].gt_boxes.tensor)
        polygons = [list(itertools.chain(*s["instances"].gt_masks.polygons)) for s in samples]
        assert all((a == b).all() for a, b in zip(*polygons, strict=True))


def test_images_beyond_the_square_are_refused_before_training(tmp_path):
    cfg = without_resizing()
    check_training_images(cfg, [photo(tmp_path, 64, 50)])
    with pytest.raises(UserError, match=r"photo\.png has 200x150 pixels after .*square_pad=64, .* be cut off\. Set"):
        check_training_images(cfg, [photo(tmp_path, 64, 50), photo(tmp_path)])
    large = {"file_name": "large.jpg", "width": 3000, "height": 2000}
    check_training_images(load_config(str(REPO / PUBLISHED)), [large])  # it crops
    check_training_images(cfg, [{"file_name": "of unknown size"}])


def test_and_in_the_model_whatever_the_mapper_does():
    cfg = load()
    model = build_model(cfg).eval()
    image = torch.zeros(3, 64, 64)
    assert len(model([{"image": image}])) == 1
    for size in ((65, 10), (10, 65)):
        with pytest.raises(UserError, match=r"a\.jpg reaches the model with \d+x\d+ pixels, more than .*square_pad=64"):
            model([{"image": image}, {"image": torch.zeros(3, *size), "file_name": "a.jpg"}])


def test_the_check_is_part_of_a_training(shapes, tmp_path):
    cfg = load_config(str(REPO / CONFIG), [*SMALL, *write_custom(shapes, tmp_path)])
    cfg.dataloader.train.mapper.augmentations.append(L(T.Resize)(shape=[80, 80]))
    with pytest.raises(UserError, match="has 80x80 pixels after"):
        resolve_config(cfg, training=True)
