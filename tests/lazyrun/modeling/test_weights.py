"""What `train.init_checkpoint` takes, and what it refuses."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.file_io import PathHandler, PathManager
from shapes import CONFIG, REPO, SMALL
from torch import nn

from lazyrun.config.loading import load_config
from lazyrun.engine.checkpoint import RunCheckpointer
from lazyrun.modeling.weights import load_weights
from pretrain.common.errors import UserError
from pretrain.common.files import save_weights
from pretrain.models import build_model

TRUNK = dict(img_size=64, embed_dim=(8, 8, 16), depth=(1, 1, 2))


@pytest.fixture
def detector():
    return instantiate(load_config(str(REPO / CONFIG), SMALL).model)


@pytest.fixture
def pretraining_file(tmp_path):
    model = build_model("convmae_convvit_tiny_patch8", **TRUNK)
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "pretrained.pth")
    return str(tmp_path / "pretrained.pth")


def test_pretraining_file_is_converted(detector, pretraining_file, caplog):
    with caplog.at_level("INFO"):
        load_weights(detector, pretraining_file, strict=False)
    trunk = torch.load(pretraining_file, weights_only=True)["model"]
    ours = detector.backbone.net.state_dict()
    assert all(torch.equal(ours[name], trunk[name]) for name in ours if "rel_pos" not in name)
    assert "ConvMAE or FastConvMAE pretraining" in caplog.text


def test_pretraining_file_is_not_enough_to_evaluate(detector, pretraining_file):
    with pytest.raises(UserError, match=r"lacks \d+ weights of the detector, such as .*: train it first"):
        load_weights(detector, pretraining_file, strict=True)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_detector_file_is_loaded_whole(detector, tmp_path, suffix):
    expected = {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in detector.state_dict().items()}
    save_weights(expected, tmp_path / f"detector{suffix}")
    load_weights(detector, str(tmp_path / f"detector{suffix}"), strict=True)
    assert all(torch.equal(t, expected[name]) for name, t in detector.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_another_number_of_classes(detector, tmp_path, suffix):
    path, state = str(tmp_path / f"coco{suffix}"), detector.state_dict()
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(81, 256)
    state["backbone.net.pos_embed"] = torch.ones_like(state["backbone.net.pos_embed"])
    save_weights(state, path)
    load_weights(detector, path, strict=False)
    assert (detector.backbone.net.pos_embed == 1).all()
    with pytest.raises(UserError, match=r"0 of \d+ weights are missing and 1 have another shape"):
        load_weights(detector, path, strict=True)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("suffix", [".pkl", ".pyth", ".pth"])
@pytest.mark.parametrize("path", ["{file}", "{file}?matching_heuristics=True"])
def test_no_code_of_a_file_is_run(detector, tmp_path, suffix, path):
    marker, file = tmp_path / "run", tmp_path / f"evil{suffix}"
    file.write_bytes(pickle.dumps({"model": Malicious(marker)}, protocol=2))
    with pytest.raises(UserError, match=r"^train.init_checkpoint: Checkpoint .* (can run any code|read safely)"):
        load_weights(detector, path.format(file=file), strict=False)
    assert not marker.exists()


def test_a_run_is_not_continued_from_a_pickle(tmp_path):
    (tmp_path / "model_0000001.pkl").write_bytes(pickle.dumps({"model": Malicious(tmp_path / "run")}))
    with pytest.raises(ValueError, match="can run any code"):
        RunCheckpointer(nn.Linear(1, 1), str(tmp_path)).load(str(tmp_path / "model_0000001.pkl"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def model_zoo(tmp_path):
    """Files as `zoo://NAME`, as `detectron2://` has them."""

    class Zoo(PathHandler):
        def _get_supported_prefixes(self):
            return ["zoo://"]

        def _get_local_path(self, path, **_):
            return str(tmp_path / path.removeprefix("zoo://"))

    PathManager.register_handler(Zoo(), allow_override=True)
    return tmp_path


def test_files_of_a_model_zoo(detector, model_zoo):
    """ViTDet's config names MAE's file so; detectron2 finds the place of each name by its ending."""
    trunk = {name: torch.full_like(t, 0.5) for name, t in detector.backbone.net.state_dict().items()}
    torch.save({"model": trunk}, model_zoo / "mae.pth")
    load_weights(detector, "zoo://mae.pth?matching_heuristics=True", strict=False)
    assert all((t == 0.5).all() for t in detector.backbone.net.state_dict().values())
    with pytest.raises(FileNotFoundError, match=r"train.init_checkpoint: Checkpoint zoo://none\.pth does not exist"):
        load_weights(detector, "zoo://none.pth", strict=False)
    (model_zoo / "mask_rcnn.pkl").write_bytes(pickle.dumps({"model": Malicious(model_zoo / "run")}))
    with pytest.raises(UserError, match="can run any code"):
        load_weights(detector, "zoo://mask_rcnn.pkl", strict=False)
    assert not (model_zoo / "run").exists()


@pytest.mark.parametrize("address", ["s3://bucket/weights.pth", "ftp://host/weights.pth"])
def test_addresses_that_nothing_fetches(detector, model_zoo, address):
    with pytest.raises(UserError, match=f"train.init_checkpoint: {address} cannot be fetched: .* https:// or hf://"):
        load_weights(detector, address, strict=False)


def test_what_cannot_be_fetched(detector, model_zoo, monkeypatch):
    def refuse(*_):
        raise URLError("no route to host")

    monkeypatch.setattr(PathManager, "get_local_path", refuse)
    with pytest.raises(UserError, match=r"zoo://mae\.pth cannot be read: .*no route to host"):
        load_weights(detector, "zoo://mae.pth", strict=False)


def test_what_cannot_be_loaded(detector, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no_such\.pth does not exist"):
        load_weights(detector, str(tmp_path / "no_such.pth"), strict=False)
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match=r"cut\.pth cannot be read safely"):
        load_weights(detector, str(tmp_path / "cut.pth"), strict=False)
    torch.save({"model": {"backbone.other": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not fit the model"):
        load_weights(detector, str(tmp_path / "other.pth"), strict=False)
    wide = build_model("convmae_convvit_tiny_patch8", **TRUNK | dict(embed_dim=(8, 8, 32)))
    torch.save({"model": wide.state_dict()}, tmp_path / "wide.pth")
    with pytest.raises(UserError, match="does not fit the model"):
        load_weights(detector, str(tmp_path / "wide.pth"), strict=False)


def test_a_failed_save_leaves_the_last_checkpoint(detector, tmp_path, monkeypatch):
    checkpointer = RunCheckpointer(detector, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    before = (tmp_path / "model_0000001.pth").read_bytes()

    def break_off(data, f):
        f.write(b"half a checkpoint")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", break_off)
    for name in ("model_0000001", "model_0000002"):
        with pytest.raises(OSError, match="No space left"):
            checkpointer.save(name, iteration=2)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert (tmp_path / "model_0000001.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]


def test_best_weights_are_not_where_a_run_resumes(detector, tmp_path):
    checkpointer = RunCheckpointer(detector, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save_weights("model_best", iteration=1)
    assert checkpointer.get_checkpoint_file().endswith("model_0000001.pth")


def test_a_run_of_another_model_is_not_continued(tmp_path):
    RunCheckpointer(nn.Linear(2, 3), str(tmp_path)).save("model_0000001", iteration=1)
    for other in (nn.Linear(2, 4), nn.Sequential(nn.Linear(2, 3))):
        with pytest.raises(
            UserError, match=r"cannot be continued .*: 2 weights .* missing or of another shape, such as"
        ):
            RunCheckpointer(other, str(tmp_path)).load(str(tmp_path / "model_0000001.pth"))
