"""Every kind of checkpoint is recognised by what it holds; everything unexplained is refused."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from published import convmae_v2, encoder_only, mae_vit

from pretrain.checkpoints.kinds import KINDS
from pretrain.checkpoints.recognition import recognise
from pretrain.models import build_model


def test_unknown_tensors_are_refused(convmae):
    with pytest.raises(
        ValueError, match=r"closest is ConvMAE or FastConvMAE pretraining, but there is no place for ema"
    ):
        recognise(convmae | {"ema.weight": torch.ones(1)})
    with pytest.raises(
        ValueError, match=r"not a known kind of checkpoint: it holds conv1\.weight, layer1\.\* \(2\)\.$"
    ):
        recognise({"conv1.weight": torch.ones(1), "layer1.0.a": torch.ones(1), "layer1.0.b": torch.ones(1)})
    with pytest.raises(
        ValueError, match="not a known kind of checkpoint"
    ):  # v2 has a class token and no stage*_output_decode
        recognise(convmae | {"cls_token": torch.ones(1, 1, 24)})


def test_incomplete_trunks_are_refused(convmae):
    without = {name: tensor for name, tensor in convmae.items() if name != "blocks3.4.attn.qkv.weight"}
    with pytest.raises(ValueError, match=r"incomplete: blocks3\.4\.attn\.qkv\.weight is missing\.$"):
        recognise(without)
    with pytest.raises(ValueError, match=r"patch_embed4\.weight is \(24, 23\) instead of \(24, 24\)"):
        recognise(convmae | {"patch_embed4.weight": torch.ones(24, 23)})
    with pytest.raises(ValueError, match=r"pos_embed is \(196, 24\)"):
        recognise(convmae | {"pos_embed": torch.ones(196, 24)})
    with pytest.raises(ValueError, match=r"sizes cannot be read: blocks3\.0\.mlp\.fc1\.weight is missing"):
        recognise({name: t for name, t in convmae.items() if not name.startswith("blocks3.0.")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds nothing"),
        ({"state_dict": {}, "epoch": 3}, r"state_dict \(dict\), epoch \(int\)"),
        ({"model": {"a": torch.ones(1), "b": 3}}, r"b \(int\)"),
        ({"module.a": torch.ones(1), "a": torch.ones(1)}, "are both a without their prefix"),
    ],
)
def test_other_content_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        recognise(content)


def test_a_list_is_refused(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list where a dictionary of tensors was expected"):
        recognise(tmp_path / "list.pth")


@pytest.mark.parametrize("index", [99999999999, 4 * 10**4])
def test_blocks_that_are_not_numbered_in_order_are_refused(convmae, index):
    """A single name could ask for a model of hundreds of gigabytes."""
    with pytest.raises(ValueError, match=rf"blocks3 has 12 blocks, but one of them is blocks3\.{index}\.$"):
        recognise(convmae | {f"blocks3.{index}.norm1.weight": torch.ones(3)})


def test_kinds_exclude_each_other(reference_names, convmae):
    files = [convmae, encoder_only(convmae), convmae_v2(), mae_vit(reference_names["mask_rcnn_vitdet_b"])]
    files += [reference_names[name] for name in ("convvit_base_classifier", "mask_rcnn_vitdet_b")]
    for names in files:
        assert sum(not any(kind.obstacles(names)) for kind in KINDS if not kind.is_video) == 1
    with torch.device("meta"):
        videos = [build_model(f"video{name}_tiny_patch16") for name in ("convmae_convvit", "convvit")]
        videos += [build_model("videoconvmae_convvit_tiny_patch16", multi_scale=False)]
    for names in [model.state_dict() for model in videos]:
        assert sum(not any(kind.obstacles(names)) for kind in KINDS if kind.is_video) == 1


def test_more_than_one_kind_is_an_error(convmae, monkeypatch):
    monkeypatch.setattr("pretrain.checkpoints.recognition.KINDS", (*KINDS, replace(KINDS[0], name="its twin")))
    with pytest.raises(
        ValueError, match="could be any of ConvMAE or FastConvMAE pretraining, its twin: it holds pos_e"
    ):
        recognise(convmae)


def test_mlp_ratios_multiply_to_the_hidden_widths():
    """Of ConvMAE-v2 files: any width, though a quotient is no float."""
    found = recognise(convmae_v2()).sizes
    for hidden in range(1, 200):
        for dim in (24, 49, 96):
            sizes = replace(found, mlp_ratio=(Fraction(hidden, dim),) * 3, embed_dim=(dim,) * 3)
            assert [int(dim * ratio) for ratio in sizes.mlp_ratios] == [hidden] * 3
