"""Overrides that put a value where a node was, refer to nothing, or cannot be used by what they are given to."""

import pytest
from detectron2.config import LazyConfig
from shapes import CONFIG

from lazyrun.config.changes import suspecting
from lazyrun.config.loading import load_config
from pretrain.common.errors import UserError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config as a `config.yaml`, which is read faster."""
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    LazyConfig.save(load_config(CONFIG), str(path))
    return str(path)


@pytest.mark.parametrize(
    "override",
    [
        *("optimizer=1e5", "train=", "train=abc", "model.roi_heads.box_pooler=-1", "train.ema=0.5", "test.tta=[]"),
        *("lr_multiplier.scheduler=linear", "dataloader.train.dataset=coco", "model.backbone=[1,2]", "data=nan"),
    ],
)
def test_a_value_in_place_of_keys(config, override):
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"^{key}=.* must have keys and values; change single ones below it"):
        load_config(config, [override])


def test_a_node_may_still_be_left_out_or_replaced(config):
    cfg = load_config(config, ["model.roi_heads.mask_head=null", "test.tta={enabled:true}"])
    assert cfg.model.roi_heads.mask_head is None and cfg.test.tta.enabled is True


@pytest.mark.parametrize(
    "override",
    [
        "lr_multiplier.scheduler.milestones='${foo}'",
        "train.seed='${train.sed}'",
        "train='${train}'",
        "optimizer.lr='???'",
    ],
)
def test_a_reference_to_nothing(config, override):
    with pytest.raises(UserError, match=r"refers to what is not there|must be a number|must have keys"):
        load_config(config, [override])


@pytest.mark.parametrize("error", [TypeError("an int"), KeyError("a"), AttributeError("b"), RuntimeError("shapes")])
def test_errors_of_a_set_up_name_the_changes(error):
    changes = [f"a.b{i}={i}" for i in range(9)]
    message = r"\(\w+Error: .*\) with the changes a\.b0=0 .* a\.b4=4 …\. .*--traceback"
    with pytest.raises(UserError, match=message), suspecting(changes):
        raise error
    with pytest.raises(type(error)), suspecting([]):
        raise error


def test_mistakes_and_other_errors_stay(tmp_path):
    with pytest.raises(UserError, match=r"^mine$"), suspecting(["a=b"]):
        raise UserError("mine")
    with pytest.raises(RuntimeError, match=r"^DefaultCPUAllocator"), suspecting(["a=b"]):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(FileNotFoundError), suspecting(["a=b"]):
        (tmp_path / "none").read_text()
