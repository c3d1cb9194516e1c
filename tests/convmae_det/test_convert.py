"""Converted checkpoints in the models that they are converted for."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import SimpleFeaturePyramid, ViT
from parity import relative_error
from published import encoder_only, mae_vit, pretraining_file, scaled
from torch import nn

from convmae_det import ConvViT
from pretrain.checkpoints.convert import Target, check_loads, convert, convert_for
from pretrain.checkpoints.recognition import recognise
from pretrain.checkpoints.report import ConversionReport
from pretrain.common.files import save_weights
from pretrain.models.trunk import ConvViTTrunk

GLOBAL_BLOCKS = (1, 4, 7, 10)


def detector(net: nn.Module) -> nn.Module:
    """A detector without heads, its parameters named as in Mask R-CNN."""
    model = nn.Module()
    model.backbone = SimpleFeaturePyramid(net, "last_feat", 8, (4.0, 2.0, 1.0, 0.5), norm="LN")
    return model


def convvit_b(**overrides) -> ConvViT:
    """ConvViT-B as published, widths divided by 32."""
    sizes = dict(img_size=224, embed_dim=(8, 12, 24), num_heads=12, use_rel_pos=True, window_size=14)
    windowed = [i for i in range(11) if i not in GLOBAL_BLOCKS]
    return ConvViT(**sizes | dict(window_block_indexes=windowed) | overrides)


def vit_b() -> ViT:
    return ViT(img_size=224, embed_dim=24, num_heads=12, use_rel_pos=True, window_size=14, norm_layer=nn.LayerNorm)


def rel_pos_and_pyramid(model: nn.Module) -> set[str]:
    return {n for n in model.state_dict() if "rel_pos" in n or not n.startswith("backbone.net.")}


@pytest.mark.parametrize("kind", ["whole", "encoder only", "classifier", "MAE ViT"])
def test_detection_checkpointer_misses_what_is_expected_and_nothing_else(tmp_path, reference_names, kind, monkeypatch):
    model = detector(vit_b() if kind == "MAE ViT" else convvit_b())
    state = {
        "whole": lambda: scaled(reference_names["convmae_base_pretrain"]),
        "encoder only": lambda: encoder_only(scaled(reference_names["convmae_base_pretrain"])),
        "classifier": lambda: scaled(reference_names["convvit_base_classifier"]),
        "MAE ViT": lambda: mae_vit(reference_names["mask_rcnn_vitdet_b"]),
    }[kind]()
    torch.save(pretraining_file(state), tmp_path / "input.pth")

    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    converted, report = convert_for(shapes, tmp_path / "input.pth")
    check_loads(model, converted, report)
    assert set(report.missing) == rel_pos_and_pyramid(model)

    converted, _ = convert(recognise(tmp_path / "input.pth"), Target.DETECTION)
    save_weights(converted, tmp_path / "detection.pth", {"__author__": "ConvMAEDet"})
    found = []
    checkpointer = DetectionCheckpointer(model)
    monkeypatch.setattr(checkpointer, "_log_incompatible_keys", found.append)
    rest = checkpointer.load(str(tmp_path / "detection.pth"))
    assert rest == {"__author__": "ConvMAEDet"}
    assert set(found[0].missing_keys) == rel_pos_and_pyramid(model)
    assert not found[0].unexpected_keys and not found[0].incorrect_shapes
    for name, tensor in state.items():
        if f"backbone.net.{name}" in shapes:
            assert torch.equal(model.state_dict()[f"backbone.net.{name}"], tensor), name


def stage3_features(trunk: ConvViTTrunk, pos_embed: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """What pretraining's stage 3 computes when no patch is masked, `(B, C, H / 16, W / 16)`."""
    _, _, tokens = trunk.forward_conv_stages(images)
    B, H, W, C = tokens.shape
    tokens = trunk.forward_blocks(2, tokens.reshape(B, H * W, C) + pos_embed)
    return tokens.reshape(B, H, W, C).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["convmae_pretrain_tiny", "fastconvmae_pretrain_tiny"])
def test_backbone_computes_the_features_of_pretraining(golden, name):
    """Up to the eps of the convolution blocks' norms, 1e-5 in pretraining and 1e-6 in detection."""
    reference = golden(name)
    sizes = {key: reference.config[key] for key in ("embed_dim", "depth", "num_heads", "mlp_ratio")}
    weights, images = reference.group("param"), reference["input.images"]
    trunk = ConvViTTrunk(**sizes)
    trunk.load_state_dict({n: weights[n] for n in trunk.state_dict()})
    side = images.shape[-1]
    backbone = ConvViT(img_size=side, pretrain_img_size=side, use_rel_pos=True, **sizes)
    model = detector(backbone)
    state, report = convert(recognise(weights), Target.DETECTION, {n: t.shape for n, t in model.state_dict().items()})
    check_loads(model, state, report)
    with torch.no_grad():
        expected = stage3_features(trunk, weights["pos_embed"], images)
        assert relative_error(backbone(images)["last_feat"], expected) <= 1e-4
        for block in (*backbone.blocks1, *backbone.blocks2):
            block.norm1.eps = block.norm2.eps = 1e-5
        assert relative_error(backbone(images)["last_feat"], expected) <= 1e-6


def test_without_relative_positions_the_features_are_the_very_same(golden):
    reference = golden("convmae_pretrain_tiny")
    sizes = {key: reference.config[key] for key in ("embed_dim", "depth", "num_heads", "mlp_ratio")}
    weights, images = reference.group("param"), reference["input.images"]
    one_eps = partial(nn.LayerNorm, eps=1e-5)
    trunk = ConvViTTrunk(norm_layer=one_eps, **sizes)
    trunk.load_state_dict({n: weights[n] for n in trunk.state_dict()})
    side = images.shape[-1]
    backbone = ConvViT(img_size=side, pretrain_img_size=side, norm_layer=one_eps, **sizes)
    state, _ = convert(recognise(weights), Target.DETECTION)
    backbone.load_state_dict({n.removeprefix("backbone.net."): t for n, t in state.items()})
    with torch.no_grad():
        assert torch.equal(backbone(images)["last_feat"], stage3_features(trunk, weights["pos_embed"], images))


def test_wrong_variant(reference_names):
    state = scaled(reference_names["convmae_base_pretrain"])
    for net, message in (
        (convvit_b(embed_dim=(8, 12, 36)), "tensors differ in shape"),
        (convvit_b(depth=(2, 2, 12)), r"the file has nothing for backbone\.net\.blocks3\.\* \(12\)"),
        (convvit_b(depth=(2, 1, 11)), r"the model has no backbone\.net\.blocks2\.\* \(14\)"),
        (vit_b(), r"the model has no backbone\.net\.patch_embed1\.proj\.\* \(2\)"),
    ):
        shapes = {name: tensor.shape for name, tensor in detector(net).state_dict().items()}
        with pytest.raises(ValueError, match=f"does not fit the model: .*{message}"):
            convert(recognise(state), Target.DETECTION, shapes)


def test_check_loads_compares_with_the_report(reference_names):
    model = detector(convvit_b())
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state, report = convert(recognise(scaled(reference_names["convmae_base_pretrain"])), Target.DETECTION, shapes)
    del state["backbone.net.pos_embed"]
    with pytest.raises(ValueError, match=r"missing otherwise than reported \['backbone\.net\.pos_embed'\]"):
        check_loads(model, state, report)


def test_counters_of_batch_norms_are_no_difference():
    """PyTorch does not list them among the missing, whatever the file holds."""
    model = nn.Sequential(OrderedDict(backbone=nn.ModuleDict({"net": nn.Linear(2, 2), "simfp_2": nn.BatchNorm1d(2)})))
    state = {f"backbone.net.{name}": t.clone() for name, t in model.backbone["net"].state_dict().items()}
    report = ConversionReport("file", "kind", "why", "variant", "detection")
    report.missing = {name: "trained from scratch" for name in model.state_dict() if name not in state}
    assert "backbone.simfp_2.num_batches_tracked" in report.missing
    check_loads(model, state, report)
