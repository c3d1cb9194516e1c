"""Images that are no squares."""

import pytest
import torch
from detectron2.config import instantiate
from shapes import CONFIG, REPO, SMALL

from lazyrun.config.loading import load_config
from lazyrun.data.padding import check_padding
from pretrain.common.errors import UserError

RECTANGLES = ["model.backbone.square_pad=0", "data.test_short_side=48", "data.test_max_size=80"]


def test_a_rectangle_is_not_padded_to_a_square():
    cfg = load_config(str(REPO / CONFIG), [*SMALL, *RECTANGLES])
    model = instantiate(cfg.model).eval()
    image = torch.randint(0, 256, (3, 48, 61), dtype=torch.uint8)
    batch = model.preprocess_image([{"image": image}])
    assert batch.tensor.shape == (1, 3, 48, 64) and batch.image_sizes == [(48, 61)]
    features = model.backbone(batch.tensor)
    assert {name: tuple(f.shape[2:]) for name, f in features.items()} == {"p2": (12, 16), "p3": (6, 8)}
    with torch.no_grad():
        (output,) = model([{"image": image, "height": 480, "width": 610}])
    assert output["instances"].image_size == (480, 610) and len(output["instances"])


def test_a_square_is_the_same_with_and_without_padding():
    model = instantiate(load_config(str(REPO / CONFIG), SMALL).model).eval()
    sample = {"image": torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)}
    with torch.no_grad():
        expected = model([sample])[0]["instances"].scores
        model.backbone._square_pad = 0
        assert torch.equal(model([sample])[0]["instances"].scores, expected)


def test_test_transform_of_rectangles():
    mapper = load_config(str(REPO / CONFIG), RECTANGLES).dataloader.test.mapper
    (resize,) = instantiate(mapper.augmentations)
    assert resize.get_output_shape(480, 640, 48, resize.max_size) == (48, 64)
    assert list(resize.short_edge_length) == [48, 48] and resize.max_size == 80


def test_images_larger_than_the_square_are_refused():
    with pytest.raises(
        UserError,
        match=r"images up to 80 pixels long, more than model\.backbone\.square_pad=64.*data\.test_max_size\) to 64",
    ):
        check_padding(load_config(str(REPO / CONFIG), RECTANGLES[2:]))
    check_padding(load_config(str(REPO / CONFIG), RECTANGLES))


def test_images_larger_than_the_crop_are_refused():
    config = str(REPO / "projects/MIMDet/configs/COCO/convmae_base_mask_rcnn_FPN_25ep.py")
    check_padding(load_config(config))
    with pytest.raises(UserError, match=r"images up to 1333 pixels long and then cuts them to a crop of 1024"):
        check_padding(load_config(config, ["data.test_max_size=1333"]))


def test_what_the_test_loader_does_is_checked_not_what_an_option_says():
    smaller = [*RECTANGLES[2:], "dataloader.test.mapper.augmentations.0.max_size=64"]
    check_padding(load_config(str(REPO / CONFIG), smaller))
    larger = ["data.test_short_side=64", "dataloader.test.mapper.augmentations.0.max_size=100"]
    with pytest.raises(UserError, match="images up to 100 pixels long"):
        check_padding(load_config(str(REPO / CONFIG), larger))
    with pytest.raises(UserError, match=r"augmentations cannot be built"):
        check_padding(load_config(str(REPO / CONFIG), ["dataloader.test.mapper.augmentations.0.sample_style=loudest"]))
