"""Overrides must name something that exists."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lazyrun.config.loading import load_config
from lazyrun.config.overrides import apply_overrides
from lazyrun.config.task import task_of
from lazyrun.modeling.build import build_model
from pretrain.common.errors import UserError

PROJECTS = Path(__file__).parents[3] / "projects"
CONFIG = str(PROJECTS / "ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py")
SEGMENTATION = str(PROJECTS / "ConvMAESeg/configs/shapes/upernet_convmae_tiny.py")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_iters=3", "train has no 'max_iters'; did you mean 'train.max_iter'"),
        ("model.backbone.net.depht=[1,1,1]", "did you mean 'model.backbone.net.depth'"),
        ("trian.max_iter=3", "the config has no 'trian'; did you mean 'train'"),
        ("dataloader.train.mapper.augmentations.7.prob=1", "has 3 entries, '7' is none of them"),
        ("train.max_iter", "'train.max_iter' is not of the form key=value"),
        ("--resume", "Option --resume comes after a key=value; put all options before"),
        ("optimizer.lr=0,001", "gives several values; decimals have a point"),
        ("train.wandb.name=a (1)", r"not of the form key=value; a value with brackets.* needs quotes"),
    ],
)
def test_bad_override(override, message):
    with pytest.raises(UserError, match=message):
        load_config(CONFIG, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=abc", r"optimizer\.lr=abc must be a number, such as 0\.00\d"),
        ("optimizer.lr=", "must be a number"),
        ("optimizer.lr=true", r"optimizer\.lr=True must be a number"),
        ("train.max_iter='10'", r"train\.max_iter=10 must be a number"),
        ("train.max_iter=abc", r"train\.max_iter=abc must be a number"),
        ("dataloader.train.total_batch_size=abc", r"total_batch_size=abc must be a number, such as (8|16)"),
        ("dataloader.train.repeat_threshold=abc", r"repeat_threshold=abc must be a number, such as 0\.0"),  # a default
        ("train.checkpointer.period=abc", r"train\.checkpointer\.period=abc must be a number"),
        ("test.tta.scales=abc", r"test\.tta\.scales=abc must be numbers, such as \["),
        ("test.tta.scales=[1,big]", r"test\.tta\.scales=\[1, 'big'\] must be numbers"),
        ("data.image_size=large", r"data\.image_size=large must be a number, such as 64"),
        ("train.amp.enabled=no", r"train\.amp\.enabled=no must be true or false"),
        ("train.max_iter=99999999999999999999", r"train\.max_iter=9+: whole numbers must be below 2\*\*31"),
        ("train.max_iter=-2147483648", r"train\.max_iter=-2147483648: whole numbers must be below"),
        ("train.max_iter=-inf", r"train\.max_iter=-inf must be a whole number, such as \d+"),
        ("test.tta.scales=[1,99999999999]", r"test\.tta\.scales=\[1, 99999999999\]: whole numbers"),
    ],
)
def test_values_of_another_kind(override, message):
    for config in (CONFIG, SEGMENTATION):
        with pytest.raises(UserError, match=message):
            load_config(config, [override])


@pytest.mark.parametrize(
    ("config", "override", "message"),
    [
        (CONFIG, "model.backbone.net.drop_path_rate=abc", r"drop_path_rate=abc must be a number, such as 0\.0"),
        (CONFIG, "model.backbone.square_pad=abc", r"square_pad=abc must be a number, such as 64"),  # ${data.image_size}
        (SEGMENTATION, "model.backbone.drop_path_rate=abc", r"drop_path_rate=abc must be a number, such as 0\.0"),
        (SEGMENTATION, "model.auxiliary_weight=abc", r"model\.auxiliary_weight=abc must be a number, such as 0\.4"),
    ],
)
def test_text_in_place_of_a_model_s_numbers(config, override, message):
    with pytest.raises(UserError, match=message):
        load_config(config, [override])


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.lr=1", 1),
        ("optimizer.lr=1e-4", 1e-4),
        ("optimizer.weight_decay=null", None),
        ("train.epochs=1.5", 1.5),
        ("train.compile=aot_eager", "aot_eager"),
        ("train.compile=true", True),
        ("train.amp.enabled=1", 1),
        ("model.backbone.net.use_act_checkpoint=[true,true,false]", [True, True, False]),
        ("model.backbone.net.embed_dim=[8,8,16]", [8, 8, 16]),
        ("model.backbone.net.window_block_indexes=[]", []),
        ("model.backbone.square_pad=0", 0),
        ("model.backbone.out_channels='${data.image_size}'", 64),
        ("model.roi_heads.box_pooler.output_size=[7,7]", [7, 7]),
        ("model.roi_heads.mask_head=null", None),
        ("model.roi_heads.box_predictor.loss_weight={loss_cls:2}", {"loss_cls": 2}),
        ("model.roi_heads.box_predictor.box_reg_loss_type=giou", "giou"),
        ("model.backbone.norm=LN", "LN"),
        ("dataloader.train.dataset.names=[coco_2017_train,coco_2017_val]", ["coco_2017_train", "coco_2017_val"]),
        ("train.wandb.name=mine", "mine"),
        ("train.checkpointer={period:5}", {"period": 5, "max_to_keep": 2}),
    ],
)
def test_values_of_other_kinds_that_fit(override, value):
    assert OmegaConf.select(load_config(CONFIG, [override]), override.partition("=")[0]) == value


def test_overrides_reach_arguments_the_config_leaves_at_their_default():
    cfg = load_config(CONFIG, ["model.backbone.net.in_chans=1", "train.amp.dtype=bfloat16", "+train.note=mine"])
    assert (cfg.model.backbone.net.in_chans, cfg.train.amp.dtype, cfg.train.note) == (1, "bfloat16", "mine")


def test_quoted_values_may_hold_brackets_and_blanks():
    assert load_config(CONFIG, ["train.init_checkpoint='a (1).pth'"]).train.init_checkpoint == "a (1).pth"


PATHS = [
    "é/ü 图.json",
    "a#1",
    "Ben's",
    "a (1), [2]",
    "50%",
    "{x}",
    "a=b",
    "2024",
    "true",
    "'",
    "back\\slash",
    "a:b",
    "@x!",
]


def test_paths_are_taken_as_they_are():
    cfg, segmentation = load_config(CONFIG), load_config(SEGMENTATION)
    for path in PATHS:
        apply_overrides(cfg, [f"data.train={path}", f"train.init_checkpoint={path}", f"train.output_dir={path}"])
        assert [cfg.data.train, cfg.train.init_checkpoint, cfg.train.output_dir] == [path] * 3
        apply_overrides(segmentation, [f"data.val_labels={path}"])
        assert segmentation.data.val_labels == path


def test_quotes_homes_and_nothing_for_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cfg = load_config(CONFIG)

    def path(text: str) -> str | None:
        apply_overrides(cfg, [f"data.train={text}"])
        return cfg.data.train

    assert path("'a (1).jpg'") == path('"a (1).jpg"') == "a (1).jpg" and path("'Ben\\'s'") == "Ben's"
    assert path("~/é") == path("'~/é'") == str(tmp_path / "é") and path("a~") == "a~"
    assert path("null") is None and path("${train.device}") == cfg.train.device
    (tmp_path / "'a'").mkdir()
    (tmp_path / "~").mkdir()
    assert path("'a'") == "'a'" and path("~") == "~"
    with pytest.raises(UserError, match="data has no 'train_labels'; did you mean"):
        apply_overrides(cfg, ["data.train_labels=a"])


def test_model_that_cannot_be_built():
    for size in ("64.5", "-64", "null"):
        with pytest.raises(UserError, match=r"data\.image_size=.* must be a whole number of pixels, at least 1"):
            build_model(load_config(CONFIG, [f"data.image_size={size}"]))
    with pytest.raises(UserError, match=r"cannot be built for data\.image_size=70: "):
        build_model(load_config(CONFIG, ["data.image_size=70"]))
    for nonsense in ("net.num_heads=0", "net.num_heads=2.5", "net.embed_dim=[-8,8,16]", "net.drop_path_rate=null"):
        with pytest.raises(UserError, match="The model of this config cannot be built"):
            build_model(load_config(CONFIG, [f"model.backbone.{nonsense}"]))


@pytest.mark.parametrize("target", ["builtins.dict", "foo.bar"])
def test_a_task_that_is_none(target):
    cfg = load_config(CONFIG)
    cfg.task = {"_target_": target}  # as a Python config may
    with pytest.raises(UserError, match=r"is not a task of this project|cannot be made"):
        task_of(cfg)


@pytest.mark.parametrize(
    "key",
    [
        "train",
        "model",
        "optimizer",
        "dataloader",
        "dataloader.train",
        "dataloader.train.mapper",
        "dataloader.evaluator",
        "task",
        "train.amp",
    ],
)
def test_a_section_that_is_none(key):
    with pytest.raises(UserError, match=rf"{key}=None must have keys and values"):
        load_config(CONFIG, [f"{key}=null"])


@pytest.mark.parametrize(
    "override",
    ["train.device=5", "train.device=null", "train.output_dir=null", "dataloader.evaluator.output_dir=-inf"],
)
def test_texts(override):
    with pytest.raises(UserError, match=r"must be a text|must be"):
        load_config(CONFIG, [override])


def test_what_may_be_large_or_infinite():
    cfg = load_config(CONFIG, ["train.seed=9223372036854775807", "optimizer.lr=inf"])
    assert cfg.train.seed == 2**63 - 1 and cfg.optimizer.lr == float("inf")


def test_an_evaluator_may_write_nothing():
    assert load_config(CONFIG, ["dataloader.evaluator.output_dir=null"]).dataloader.evaluator.output_dir is None


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
        with pytest.raises(UserError, match=message) as e:
            load_config(str(cut))
        assert "\n" not in str(e.value)
    broken.write_text("model = dict()")
    with pytest.raises(UserError, match="defines no dataloader, optimizer, lr_multiplier, train"):
        load_config(str(broken))
