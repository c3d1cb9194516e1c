"""Pretraining files, published segmentation checkpoints and own ones in segmentation models."""

from pathlib import Path

import pytest
import torch
from published import encoder_only, full_size, mae_vit, pretraining_file, scaled
from segmentor import SIZES, build_segmentor

from convmae_det.attention.table import RelPosBiasTable
from lazyrun.modeling.weights import load_weights
from pretrain.checkpoints.convert import Target, check_loads, convert, target_for
from pretrain.checkpoints.kinds import Part
from pretrain.checkpoints.recognition import recognise
from pretrain.common.errors import UserError
from pretrain.common.files import save_weights
from pretrain.models import build_model
from pretrain.models.pos_embed import resize_pos_embed

COUNTER, INDEX, TABLE = "num_batches_tracked", "relative_position_index", "relative_position_bias_table"


def pretrained(**overrides) -> dict[str, torch.Tensor]:
    return build_model(
        "convmae_convvit_base_patch16",
        **dict(img_size=64, decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=4) | SIZES | overrides,
    ).state_dict()


def published(model: torch.nn.Module) -> dict:
    """What mmsegmentation saves, with random weights."""
    state = {n: torch.randn_like(t) if t.is_floating_point() else t for n, t in model.state_dict().items()}
    state = {n: t for n, t in state.items() if not n.endswith(COUNTER)}
    meta = {"mmseg_version": "0.11.0", "CLASSES": ("wall", "building"), "PALETTE": [[120, 120, 120]], "iter": 160000}
    return {"state_dict": state, "meta": meta, "optimizer": {"state": {}, "param_groups": []}}


def save(content, tmp_path, name="file.pth") -> str:
    torch.save(content, tmp_path / name)
    return str(tmp_path / name)


def shapes_of(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("whole", [True, False])
def test_a_pretraining_file(prefix, whole, tmp_path, caplog, address_of):
    state = pretrained() if whole else encoder_only(pretrained())
    path = address_of(Path(save(pretraining_file({prefix + n: t for n, t in state.items()}), tmp_path)))
    model = build_segmentor(img_size=96)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level("INFO"):
        load_weights(model, path, strict=False)
    ours = model.state_dict()
    trunk = {n: t for n, t in state.items() if n.startswith(("patch_embed", "blocks"))}
    assert all(torch.equal(ours[f"backbone.{name}"], tensor) for name, tensor in trunk.items())
    assert torch.equal(ours["backbone.pos_embed"], resize_pos_embed(state["pos_embed"], (4, 4), (6, 6)))
    rest = ours.keys() - {f"backbone.{name}" for name in trunk} - {"backbone.pos_embed"}
    assert all(torch.equal(ours[name], before[name]) for name in rest)
    assert "grid 4x4 resized to 6x6" in caplog.text and "LayerScale is learned in segmentation only" in caplog.text


def test_a_pretraining_file_is_not_enough_to_evaluate(tmp_path):
    path = save(pretraining_file(pretrained()), tmp_path)
    with pytest.raises(UserError, match=r"lacks \d+ weights of the segmentation model, such as .*: train it first"):
        load_weights(build_segmentor(), path, strict=True)


def test_exactly_what_pretraining_does_not_have_is_missing():
    model = build_segmentor()
    state, report = convert(recognise(pretrained()), Target.SEGMENTATION, shapes_of(model))
    check_loads(model, state, report)
    missing = {".".join(n for n in name.split(".")[:3] if not n.isdigit()) for name in report.missing}
    assert {name for name in missing if name.startswith("backbone")} == {"backbone.blocks3", "backbone.fpn"}
    kinds = {name.rpartition(".")[2] for name in report.missing if ".blocks3." in name}
    assert kinds == {TABLE, INDEX, "gamma_1", "gamma_2"}
    dropped = {name.split(".")[0] for name in report.dropped}
    assert dropped == {"norm", "stage1_output_decode", "stage2_output_decode", "mask_token"} | {
        f"decoder_{part}" for part in ("embed", "pos_embed", "blocks", "norm", "pred")
    }


def test_a_published_checkpoint_loads_by_name(tmp_path):
    content = published(build_segmentor())
    model = build_segmentor()
    load_weights(model, save(content, tmp_path), strict=True)
    ours = model.state_dict()
    assert {n for n in ours if n not in content["state_dict"]} == {n for n in ours if n.endswith(COUNTER)}
    assert all(torch.equal(ours[name], tensor) for name, tensor in content["state_dict"].items())


def test_the_published_names(reference_names):
    state = full_size(reference_names["upernet_convmae_base"])
    checkpoint = recognise({"state_dict": state, "meta": {}})
    assert checkpoint.kind.name == "segmentation checkpoint, ConvViT backbone"
    assert checkpoint.variant.startswith("ConvViT-B ") and checkpoint.extras == ("meta",)
    assert {p for p in Part if checkpoint.has(p)} == {
        Part.TRUNK, Part.POS_EMBED, Part.REL_POS, Part.LAYER_SCALE, Part.PYRAMID, Part.SEGMENTOR
    }  # fmt: skip
    converted, report = convert(checkpoint, Target.SEGMENTATION)
    assert converted.keys() == state.keys() and list(report.dropped) == ["meta"] and not report.missing


def test_a_checkpoint_for_images_of_another_size(tmp_path, caplog):
    content = published(build_segmentor(img_size=64))
    model = build_segmentor(img_size=96)
    with caplog.at_level("INFO"):
        load_weights(model, save(content, tmp_path), strict=True)
    ours = model.state_dict()
    positions = resize_pos_embed(content["state_dict"]["backbone.pos_embed"], (4, 4), (6, 6))
    assert torch.equal(ours["backbone.pos_embed"], positions)
    table = RelPosBiasTable(4, 4)
    for block in (0, 1):
        name = f"backbone.blocks3.{block}.attn.{TABLE}"
        table.load_state_dict({TABLE: content["state_dict"][name], INDEX: torch.zeros(16, 16)})
        torch.testing.assert_close(ours[name].T.unflatten(1, (11, 11)), table(6, 6).detach())
    assert "2 tables of relative position biases: (49, 4) -> (121, 4)" in caplog.text
    same = [n for n in content["state_dict"] if "pos" not in n]
    assert len(same) > 100 and all(torch.equal(ours[n], content["state_dict"][n]) for n in same)


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_other_classes_begin_anew_but_are_not_evaluated(tmp_path, key, caplog):
    content = published(build_segmentor(num_classes=5))
    path = save({key: content["state_dict"]}, tmp_path)
    model = build_segmentor(num_classes=3)
    before = model.decode_head.conv_seg.weight.clone()
    with caplog.at_level("INFO"):
        load_weights(model, path, strict=False)
    assert torch.equal(model.decode_head.conv_seg.weight, before)
    bottleneck = content["state_dict"]["decode_head.bottleneck.conv.weight"]
    assert torch.equal(model.decode_head.bottleneck.conv.weight, bottleneck)
    assert "the file has 5 classes, the model 3" in caplog.text
    with pytest.raises(UserError, match=r"lacks 4 weights .*the file has 5 classes, the model 3"):
        load_weights(model, path, strict=True)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_own_file(suffix, tmp_path):
    trained, fresh = build_segmentor(), build_segmentor()
    trained(
        [{"image": torch.rand(3, 64, 64) * 255, "sem_seg": torch.zeros(64, 64, dtype=torch.int64)} for _ in range(2)]
    )
    save_weights(trained.state_dict(), tmp_path / f"own{suffix}")
    load_weights(fresh, str(tmp_path / f"own{suffix}"), strict=True)
    assert all(torch.equal(fresh.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())
    assert fresh.decode_head.bottleneck.bn.num_batches_tracked == 1


def test_a_model_without_auxiliary_head(tmp_path):
    content = published(build_segmentor())
    model = build_segmentor()
    model.auxiliary_head = None
    load_weights(model, save(content, tmp_path), strict=True)
    state, report = convert(recognise(content), Target.SEGMENTATION, shapes_of(model))
    assert set(report.dropped.values()) == {"not weights", "the model has no auxiliary head"}
    assert not any(name.startswith("auxiliary_head") for name in state)


def test_a_file_without_auxiliary_head(tmp_path):
    content = published(build_segmentor())
    for name in [name for name in content["state_dict"] if name.startswith("auxiliary_head")]:
        del content["state_dict"][name]
    path = save(content, tmp_path)
    load_weights(build_segmentor(), path, strict=False)
    with pytest.raises(UserError, match=r"lacks \d+ weights .*the file has no auxiliary head"):
        load_weights(build_segmentor(), path, strict=True)


def test_there_without_a_model_and_then_into_it(tmp_path):
    source = pretrained()
    state, report = convert(recognise(source), Target.SEGMENTATION)
    assert not report.missing and "not compared with a model" in str(report)
    model = build_segmentor(img_size=96)
    load_weights(model, save({"model": state}, tmp_path), strict=False)
    assert torch.equal(model.backbone.patch_embed4.weight, source["patch_embed4.weight"])
    assert torch.equal(model.backbone.pos_embed, resize_pos_embed(source["pos_embed"], (4, 4), (6, 6)))


def test_a_detector_gives_its_trunk(reference_names):
    detector = scaled(reference_names["mask_rcnn_vitdet_convmae_b"])
    state, report = convert(recognise(detector), Target.SEGMENTATION)
    assert all(torch.equal(state[n.replace("net.", "")], t) for n, t in detector.items() if n in report.renamed)
    assert len(state) == 203 and all(n.startswith("backbone.") and ".net." not in n for n in state)
    assert "segmentation has tables of its own" in report.dropped["backbone.net.blocks3.0.attn.rel_pos_h"]


def test_what_does_not_fit(reference_names, tmp_path):
    content = published(build_segmentor())
    for target in (Target.DETECTION, Target.PRETRAIN, Target.CLASSIFIER):
        with pytest.raises(ValueError, match=f"have no place in {target.value}"):
            convert(recognise(content), target)
    vit = mae_vit(reference_names["mask_rcnn_vitdet_b"])
    with pytest.raises(ValueError, match="plain ViT; there are segmentation models for ConvViT only"):
        convert(recognise(vit), Target.SEGMENTATION)
    model = build_segmentor()
    with pytest.raises(ValueError, match="The model is one for segmentation, not for detection"):
        convert(recognise(pretrained()), Target.DETECTION, shapes_of(model))
    wide = published(build_segmentor(channels=24))
    with pytest.raises(UserError, match=r"does not fit the model: .* differ in shape"):
        load_weights(model, save(wide, tmp_path), strict=False)
    del content["state_dict"]["decode_head.bottleneck.conv.weight"]
    for strict in (True, False):
        with pytest.raises(UserError, match=r"the file has nothing for decode_head\.bottleneck\.\*"):
            load_weights(model, save(content, tmp_path), strict=strict)
    assert target_for(shapes_of(model)) is Target.SEGMENTATION
