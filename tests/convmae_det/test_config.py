"""Overrides must name something that exists."""

from pathlib import Path

import pytest

from convmae_det.config import build_model, load_config
from pretrain.errors import UserError

CONFIG = str(Path(__file__).parents[2] / "projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_iters=3", "train has no 'max_iters'; did you mean 'train.max_iter'"),
        ("model.backbone.net.depht=[1,1,1]", "did you mean 'model.backbone.net.depth'"),
        ("trian.max_iter=3", "the config has no 'trian'; did you mean 'train'"),
        ("dataloader.train.mapper.augmentations.7.prob=1", "has 2 entries, '7' is none of them"),
        ("train.max_iter", "'train.max_iter' is not of the form key=value"),
        ("optimizer.lr=0,001", "gives several values; decimals have a point"),
        ("train.init_checkpoint=a (1).pth", r"not of the form key=value; a value with brackets.* needs quotes"),
    ],
)
def test_bad_override(override, message):
    with pytest.raises(UserError, match=message):
        load_config(CONFIG, [override])


def test_overrides_reach_arguments_the_config_leaves_at_their_default():
    cfg = load_config(CONFIG, ["model.backbone.net.in_chans=1", "train.amp.dtype=bfloat16", "+train.note=mine"])
    assert (cfg.model.backbone.net.in_chans, cfg.train.amp.dtype, cfg.train.note) == (1, "bfloat16", "mine")


def test_quoted_values_may_hold_brackets_and_blanks():
    assert load_config(CONFIG, ["train.init_checkpoint='a (1).pth'"]).train.init_checkpoint == "a (1).pth"


def test_model_that_cannot_be_built():
    for size in ("large", "64.5", "-64", "null"):
        with pytest.raises(UserError, match=r"data\.image_size=.* must be a whole number of pixels, at least 1"):
            build_model(load_config(CONFIG, [f"data.image_size={size}"]))
    with pytest.raises(UserError, match=r"cannot be built for data\.image_size=70: "):
        build_model(load_config(CONFIG, ["data.image_size=70"]))


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match=r"no/such\.py' does not exist"):
        load_config("no/such.py")
    broken = tmp_path / "broken.py"
    broken.write_text("model = (")
    with pytest.raises(UserError, match=r"broken\.py cannot be loaded: SyntaxError"):
        load_config(str(broken))
    for text, error in (
        ("model = nothing", "NameError"),
        ("import os\nos.nothing", "AttributeError"),
        ("1 + 'a'", "Type"),
    ):
        broken.write_text(text)
        with pytest.raises(UserError, match=rf"broken\.py cannot be loaded: {error}"):
            load_config(str(broken))
    cut = tmp_path / "config.yaml"
    for text, message in (
        ("model: {a: 1", "cannot be loaded: ParserError"),
        ("model: {a: 1}\ndataloader:", "defines no dataloader, optimizer"),
        ("", "holds no keys and values"),
        ("[1, 2]", "holds no keys and values"),
    ):
        cut.write_text(text)
        with pytest.raises(UserError, match=message):
            load_config(str(cut))
    broken.write_text("model = dict()")
    with pytest.raises(UserError, match="defines no dataloader, optimizer, lr_multiplier, train"):
        load_config(str(broken))
