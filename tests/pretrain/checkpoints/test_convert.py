"""Every kind of checkpoint is converted and reported, tensor by tensor."""

import pytest
import torch
from published import EMBED_DIM, convmae_v2, encoder_only, full_size, mae_vit, pretraining_file, scaled
from safetensors.torch import save_file

from pretrain.checkpoints.convert import Target, convert, convert_for
from pretrain.checkpoints.kinds import NET_PREFIX
from pretrain.checkpoints.recognition import recognise
from pretrain.models.pos_embed import resize_pos_embed

CONVVIT_B = "ConvViT-B (embed_dim 256, 384, 768; depth 2, 2, 11; patch_size 4, 2, 2; mlp_ratio 4, 4, 4)"
PRETRAINING_ONLY = ("norm.", "stage1_output_decode", "stage2_output_decode", "mask_token", "decoder_")


def trunk_of(state):
    return {name for name in state if not name.startswith(PRETRAINING_ONLY)}


@pytest.mark.parametrize(
    ("reference", "kind", "variant"),
    [
        ("convmae_base_pretrain", "ConvMAE or FastConvMAE pretraining", CONVVIT_B),
        ("fastconvmae_base_pretrain", "ConvMAE or FastConvMAE pretraining", CONVVIT_B),
        ("convvit_base_classifier", "ConvViT classifier", CONVVIT_B),
        ("mask_rcnn_vitdet_convmae_b", "detectron2 checkpoint, ConvViT backbone", CONVVIT_B),
        (
            "mask_rcnn_vitdet_b",
            "detectron2 checkpoint, ViT backbone",
            "ViT-B (embed_dim 768; depth 12; patch_size 16; mlp_ratio 4)",
        ),
        ("convmae_base_mask_rcnn_FPN_25ep", "detectron2 checkpoint, other backbone", "unknown"),
        ("benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae", "detectron2 checkpoint, other backbone", "unknown"),
        (
            "mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x",
            "detectron2 checkpoint, other backbone",
            "unknown",
        ),
    ],
)
def test_published_names_and_shapes(reference_names, reference, kind, variant):
    state = full_size(reference_names[reference])
    _, report = convert(recognise(state), Target.DETECTION)
    assert (report.kind, report.variant) == (kind, variant)


def test_full_size_convmae_against_the_published_detector(reference_names):
    pretraining, detector = reference_names["convmae_base_pretrain"], reference_names["mask_rcnn_vitdet_convmae_b"]
    for state in (full_size(pretraining), encoder_only(full_size(pretraining))):
        converted, report = convert(recognise(state), Target.DETECTION, detector)
        assert {name: list(tensor.shape) for name, tensor in converted.items()} == {
            name: shape for name, shape in detector.items() if name.startswith(NET_PREFIX) and "rel_pos" not in name
        }
        assert report.missing.keys() == detector.keys() - converted.keys()
        assert report.dropped.keys() == {name for name in state if name.startswith(PRETRAINING_ONLY)}
        assert not report.resized and not report.made
        assert set(report.missing.values()) == {
            "relative positions are learned in detection only",
            "the feature pyramid is trained from scratch",
            "the heads are trained from scratch",
        }


def test_full_size_mae_against_the_published_vitdet(reference_names):
    detector = reference_names["mask_rcnn_vitdet_b"]
    net = {name: shape for name, shape in detector.items() if name.startswith(NET_PREFIX) and "rel_pos" not in name}
    state = full_size({name.removeprefix(NET_PREFIX): shape for name, shape in net.items()})
    state |= full_size({"cls_token": [1, 1, 768], "norm.weight": [768], "norm.bias": [768]})
    converted, report = convert(recognise(state), Target.DETECTION, detector)
    assert {name: list(tensor.shape) for name, tensor in converted.items()} == net
    assert report.kind == "MAE ViT pretraining"
    assert report.missing.keys() == detector.keys() - net.keys()
    assert report.dropped.keys() == {"cls_token", "norm.weight", "norm.bias"}


@pytest.mark.parametrize("form", ["whole", "bare", "module.", "encoder.", "module.encoder.", "safetensors", "legacy"])
def test_forms_of_a_file(tmp_path, convmae, form):
    prefix = form if form.endswith(".") else ""
    state = {prefix + name: tensor for name, tensor in convmae.items()}
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        content = state if form == "bare" else pretraining_file(state, "fastconvmae_convvit_base_patch16")
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    checkpoint = recognise(path)
    converted, report = convert(checkpoint, Target.DETECTION)
    assert converted.keys() == {NET_PREFIX + name for name in trunk_of(convmae)}
    for name, tensor in converted.items():
        assert torch.equal(tensor, convmae[name.removeprefix(NET_PREFIX)])
    assert report.renamed == {prefix + name: NET_PREFIX + name for name in trunk_of(convmae)}
    has_extras = form not in ("bare", "safetensors")
    assert checkpoint.extras == (("optimizer", "epoch", "scaler", "args") if has_extras else ())
    assert ("fastconvmae_convvit_base_patch16" in checkpoint.why) == has_extras
    text = str(report)
    assert f"{prefix}* -> backbone.net.* (203)" in text and "ConvViT-other (embed_dim 8, 12, 24" in text


def test_there_and_back_is_bit_identical(convmae):
    there, _ = convert(recognise(convmae), Target.DETECTION)
    back, report = convert(recognise({"model": there}), Target.PRETRAIN)
    assert back.keys() == trunk_of(convmae)
    for name, tensor in back.items():
        assert torch.equal(tensor, convmae[name])
    assert "decoder_blocks" in report.missing and "mask_token" in report.missing
    again, _ = convert(recognise(back), Target.DETECTION)
    assert again.keys() == there.keys()
    assert all(torch.equal(again[name], there[name]) for name in there)


def test_detector_to_trunk(detector):
    content = {"model": detector, "trainer": {"iteration": 9}, "optimizer": {"state": {}}, "iteration": 9}
    state, report = convert(recognise(content), Target.PRETRAIN)
    net = {
        n.removeprefix(NET_PREFIX): t for n, t in detector.items() if n.startswith(NET_PREFIX) and "rel_pos" not in n
    }
    assert state.keys() == net.keys() and all(torch.equal(state[name], net[name]) for name in net)
    assert report.dropped.keys() == {
        "trainer",
        "optimizer",
        "iteration",
        *(name for name in detector if not name.startswith(NET_PREFIX) or "rel_pos" in name),
    }
    assert recognise(state).kind.name == "bare ConvViT trunk"


def test_detector_stays_as_it_is(detector):
    state, report = convert(recognise({"model": detector, "iteration": 9}), Target.DETECTION)
    assert state.keys() == detector.keys() and not report.renamed and report.dropped.keys() == {"iteration"}


def test_vit_detector_to_trunk_and_back(reference_names):
    names = reference_names["mask_rcnn_vitdet_b"]
    there, _ = convert(recognise(mae_vit(names)), Target.DETECTION)
    trunk, _ = convert(recognise(there), Target.PRETRAIN)
    again, report = convert(recognise(trunk), Target.DETECTION)
    assert report.kind == "bare ViT trunk"
    assert again.keys() == there.keys() and all(torch.equal(again[name], there[name]) for name in there)


def test_classifier_from_pretraining(convmae, reference_names):
    state, report = convert(recognise(convmae), Target.CLASSIFIER)
    expected = reference_names["convvit_base_classifier"].keys()
    assert state.keys() == expected - {"head.weight", "head.bias"}
    assert report.missing.keys() == {"head.weight", "head.bias"}
    assert report.made.keys() == {"fc_norm.weight", "fc_norm.bias"}
    assert torch.equal(state["fc_norm.weight"], torch.ones(EMBED_DIM[2]))
    assert torch.equal(state["fc_norm.bias"], torch.zeros(EMBED_DIM[2]))
    assert {"norm.weight", "norm.bias"} <= report.dropped.keys()


def test_classifier_to_others(reference_names):
    classifier = scaled(reference_names["convvit_base_classifier"])
    kept, report = convert(recognise(classifier), Target.CLASSIFIER)
    assert kept.keys() == classifier.keys() and not report.missing and not report.made
    for target, prefix in ((Target.DETECTION, NET_PREFIX), (Target.PRETRAIN, "")):
        state, report = convert(recognise({"model": classifier}), target)
        assert report.dropped.keys() == {"head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"}
        assert {prefix + name for name in classifier} - state.keys() == {prefix + name for name in report.dropped}


@pytest.mark.parametrize("cls_slot", [True, False])
def test_convmae_v2(cls_slot):
    file = convmae_v2(cls_slot=cls_slot)
    state, report = convert(recognise({"model": file}), Target.DETECTION)
    assert report.kind == "ConvMAE-v2 pretraining"
    assert report.variant == "ConvViT-other (embed_dim 8, 16, 32; depth 1, 2, 3; patch_size 4, 2, 2; mlp_ratio 4, 4, 2)"
    assert torch.equal(state[f"{NET_PREFIX}pos_embed"], file["pos_embed"][:, int(cls_slot) :])
    assert report.dropped.keys() == {"cls_token", "norm.weight", "norm.bias"}
    if cls_slot:
        assert report.resized == {f"{NET_PREFIX}pos_embed": "(1, 17, 32) -> (1, 16, 32), class token's slot dropped"}
        shapes = {name: tensor.shape for name, tensor in state.items()} | {f"{NET_PREFIX}pos_embed": (1, 17, 32)}
        with_slot, report = convert(recognise(file), Target.DETECTION, shapes)
        assert torch.equal(with_slot[f"{NET_PREFIX}pos_embed"], file["pos_embed"]) and not report.resized
        again, report = convert(recognise(with_slot), Target.DETECTION)
        assert torch.equal(again[f"{NET_PREFIX}pos_embed"], file["pos_embed"]) and not report.resized
    else:
        assert not report.resized
    back, report = convert(recognise(file), Target.PRETRAIN)
    assert_equal(back, file)
    assert report.missing.keys() >= {"mask_token", "decoder_pred"} and "stage1_output_decode" not in report.missing


def assert_equal(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("cls_slot", [True, False])
def test_convmae_v2_there_and_back(cls_slot):
    """A classifier has all of it; backbones have the trunk, and a reason for what of the class token is left out."""
    file = convmae_v2(cls_slot=cls_slot)
    classifier, report = convert(recognise(file), Target.CLASSIFIER)
    assert classifier.keys() - file.keys() == {"fc_norm.weight", "fc_norm.bias"} == report.made.keys()
    assert not report.dropped and not report.resized
    assert recognise(classifier).kind.name == "ConvViT classifier without its head"
    assert_equal(convert(recognise(classifier), Target.PRETRAIN)[0], file)
    assert_equal(convert(recognise(classifier), Target.CLASSIFIER)[0], classifier)
    for target, prefix, backbone in (
        (Target.DETECTION, NET_PREFIX, "the detector"),
        (Target.SEGMENTATION, "backbone.", "the backbone"),
    ):
        there, report = convert(recognise(file), target)
        assert report.dropped["cls_token"] == f"{backbone} has no class token"
        trunk = {name: tensor for name, tensor in file.items() if not name.startswith(("cls_token", "norm."))}
        trunk["pos_embed"] = file["pos_embed"][:, int(cls_slot) :]
        assert_equal(there, {prefix + name: tensor for name, tensor in trunk.items()})
        if target is Target.DETECTION:
            assert_equal(convert(recognise(there), Target.PRETRAIN)[0], trunk)
            assert_equal(convert(recognise(convert(recognise(classifier), target)[0]), Target.PRETRAIN)[0], trunk)


def test_positions_resized_to_the_target(convmae, detector):
    name = f"{NET_PREFIX}pos_embed"
    shapes = {n: tuple(t.shape) for n, t in detector.items()}
    state, report = convert(recognise(convmae), Target.DETECTION, shapes | {name: (1, 1024, 24)})
    assert torch.equal(state[name], resize_pos_embed(convmae["pos_embed"], (14, 14), (32, 32)))
    assert report.resized == {name: "(1, 196, 24) -> (1, 1024, 24), grid 14x14 resized to 32x32"}
    with pytest.raises(ValueError, match="pretrain_use_cls_token=False"):
        convert(recognise(convmae), Target.DETECTION, shapes | {name: (1, 197, 24)})


def test_class_slot_stays_first_when_a_grid_is_resized(reference_names):
    file = mae_vit(reference_names["mask_rcnn_vitdet_b"])
    name = f"{NET_PREFIX}pos_embed"
    there, _ = convert(recognise(file), Target.DETECTION)
    shapes = {n: tuple(t.shape) for n, t in there.items()} | {name: (1, 65, 24)}
    state, _ = convert(recognise(file), Target.DETECTION, shapes)
    assert torch.equal(state[name][:, :1], file["pos_embed"][:, :1])
    assert torch.equal(state[name][:, 1:], resize_pos_embed(file["pos_embed"][:, 1:], (14, 14), (8, 8)))


def test_convert_for_a_model(tmp_path, convmae, detector):
    path = tmp_path / "convmae.pth"
    torch.save(pretraining_file(convmae), path)
    shapes = {name: tensor.shape for name, tensor in detector.items()}
    state, report = convert_for(shapes, path)
    assert report.missing.keys() == shapes.keys() - state.keys()
    narrower = {name: tensor.shape for name, tensor in convmae_v2().items()}
    with pytest.raises(
        ValueError,
        match=r"does not fit the model: the model has no backbone\.net\.pos_embed, backbone\.net\.patch_embed1",
    ):
        convert_for(narrower, path)
    wider = shapes | {f"{NET_PREFIX}blocks3.11.norm1.weight": (24,)}
    with pytest.raises(ValueError, match=r"the file has nothing for backbone\.net\.blocks3\.\* \(1\)"):
        convert_for(wider, path)
    other = shapes | {f"{NET_PREFIX}patch_embed4.weight": (48, 48)}
    with pytest.raises(ValueError, match=r"1 tensors differ in shape .*\(24, 24\) in the file and \(48, 48\)"):
        convert_for(other, path)


def test_oblong_positions_of_an_unknown_grid(convmae):
    """5x10 positions are not taken for 7x7 and a class token that the file does not have."""
    oblong = recognise(convmae | {"pos_embed": torch.randn(1, 50, 24)})
    with pytest.raises(ValueError, match=r"50 positions is not a square grid, and the file does not say"):
        convert(oblong, Target.DETECTION)
    for target in (Target.CLASSIFIER, Target.PRETRAIN):
        state, _ = convert(oblong, target)
        assert state["pos_embed"].shape == (1, 50, 24)
    with pytest.raises(ValueError, match="151 positions is not a square grid, with or without a class token"):
        convert(recognise(convmae_v2() | {"pos_embed": torch.ones(1, 151, 32)}), Target.DETECTION)


def test_impossible_conversions(reference_names):
    with pytest.raises(ValueError, match="plain ViT"):
        convert(recognise(mae_vit(reference_names["mask_rcnn_vitdet_b"])), Target.CLASSIFIER)
    with pytest.raises(ValueError, match=r"without backbone\.net"):
        convert(recognise(full_size(reference_names["convmae_base_mask_rcnn_FPN_25ep"])), Target.PRETRAIN)
