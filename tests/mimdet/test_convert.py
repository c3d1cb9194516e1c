"""Pretraining files and detectors' own files in the detectors of the MIMDet family."""

from functools import partial

import pytest
import torch
from detectron2.modeling import FPN
from published import encoder_only, pretraining_file
from torch import nn

from convmae_det import ConvViTFPN
from lazyrun.modeling.weights import load_weights
from mimdet import BenchmarkingViT, MIMDetBackbone
from pretrain.benchmarks.baselines import MaskedAutoencoderViT
from pretrain.checkpoints.convert import Target, check_loads, convert
from pretrain.checkpoints.recognition import recognise
from pretrain.common.files import save_weights
from pretrain.models import build_model
from pretrain.models.pos_embed import resize_pos_embed

MAE = dict(img_size=64, embed_dim=32, depth=4, num_heads=4, decoder_embed_dim=24, decoder_depth=3, decoder_num_heads=4)
MIMDET = MAE | dict(img_size=96, decoder_depth=2)


def detector(bottom_up: nn.Module) -> nn.Module:
    """A detector with one head's layer, its parameters named as in Mask R-CNN."""
    model = nn.Module()
    model.backbone = FPN(bottom_up, list(bottom_up.output_shape()), 8, norm="BN")
    model.roi_heads = nn.Linear(2, 2)
    return model


def mae(**overrides) -> dict[str, torch.Tensor]:
    state = MaskedAutoencoderViT(**MAE | overrides).state_dict()
    # As in published files, the positions begin with the class token's.
    for name in ("pos_embed", "decoder_pos_embed"):
        state[name] = nn.functional.pad(state[name], (0, 0, 1, 0))
    return {name: torch.randn_like(t) if "pos_embed" not in name else t for name, t in state.items()}


def convert_into(model: nn.Module, state: dict):
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    converted, report = convert(recognise(state), Target.DETECTION, shapes)
    check_loads(model, converted, report)
    return model.state_dict(), report


def missing_in(report, prefix: str = "backbone.bottom_up.") -> set[str]:
    """What the backbone takes from nowhere, without the block's or layer's name."""
    return {".".join(name.removeprefix(prefix).split(".")[:2]) for name in report.missing if name.startswith(prefix)}


@pytest.mark.parametrize("prefix", ["", "module.", "encoder."])
def test_mae_with_its_decoder_into_mimdet(prefix):
    state = mae()
    file = pretraining_file({prefix + name: tensor for name, tensor in state.items()}, "mae_vit_base_patch16")
    ours, report = convert_into(detector(MIMDetBackbone(**MIMDET)), file)
    for name, tensor in state.items():
        to = "decoder" if name.startswith("decoder_") else "encoder"
        if name.startswith(
            ("blocks.", "norm.", "decoder_embed", "decoder_norm", "decoder_blocks.0", "decoder_blocks.1")
        ):
            assert torch.equal(ours[f"backbone.bottom_up.{to}.{name}"], tensor), name
        elif name.endswith("pos_embed"):
            grid = resize_pos_embed(tensor[:, 1:], (4, 4), (6, 6))
            expected = torch.cat([tensor[:, :1], grid], 1)
            torch.testing.assert_close(ours[f"backbone.bottom_up.{to}.{name}"], expected)
        else:
            assert prefix + name in report.dropped, name
    left = {name.removeprefix(prefix).partition(".")[0] for name in report.dropped}
    assert left == {
        "patch_embed",
        "cls_token",
        "mask_token",
        "decoder_pred",
        "decoder_blocks",
        "optimizer",
        "epoch",
        "scaler",
        "args",
    }
    assert {n.removeprefix(prefix)[:16] for n in report.dropped if "blocks" in n} == {"decoder_blocks.2"}
    assert missing_in(report) == {"encoder.patch_embed", "decoder.conv_feat_proj"}


def test_mae_without_its_decoder_is_not_enough_for_mimdet():
    with pytest.raises(ValueError, match=r"the file has nothing for backbone\.bottom_up\.\* \(\d+\)"):
        convert_into(detector(MIMDetBackbone(**MIMDET)), encoder_only(mae()))


@pytest.mark.parametrize("whole", [True, False])
def test_mae_into_the_benchmarking_vit(whole):
    state = mae() if whole else encoder_only(mae())
    model = detector(BenchmarkingViT(img_size=96, embed_dim=32, depth=4, num_heads=4))
    positions = model.backbone.bottom_up.pos_embed.detach().clone()
    ours, report = convert_into(model, state)
    for name, tensor in state.items():
        if name.startswith(("blocks.", "patch_embed.")):
            assert torch.equal(ours[f"backbone.bottom_up.{name}"], tensor), name
        else:
            assert name in report.dropped, name
    assert torch.equal(ours["backbone.bottom_up.pos_embed"], positions)
    assert {name.partition(".")[0] for name in missing_in(report)} == {
        "pos_embed", "ms_adaptor", "windowed_rel_pos_bias", "global_rel_pos_bias"
    }  # fmt: skip


def test_convmae_into_a_feature_pyramid_network():
    sizes = dict(embed_dim=(8, 12, 24), depth=(1, 1, 2), num_heads=4)
    pretrained = build_model(
        "convmae_convvit_base_patch16", img_size=64, decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=4, **sizes
    )
    state = pretrained.state_dict()
    model = detector(ConvViTFPN(img_size=96, global_block_indexes=[1], **sizes))
    ours, report = convert_into(model, pretraining_file(state))
    for name, tensor in state.items():
        if name.startswith(("blocks", "patch_embed")):
            assert torch.equal(ours[f"backbone.bottom_up.{name}"], tensor), name
    expected = resize_pos_embed(state["pos_embed"], (4, 4), (6, 6))
    assert torch.equal(ours["backbone.bottom_up.pos_embed"], expected)
    assert "grid 4x4 resized to 6x6" in report.resized["backbone.bottom_up.pos_embed"]
    assert {name.partition(".")[0] for name in missing_in(report)} == {"windowed_rel_pos_bias", "global_rel_pos_bias"}


@pytest.mark.parametrize(
    "bottom_up",
    [
        partial(MIMDetBackbone, **MIMDET),
        partial(BenchmarkingViT, img_size=64, embed_dim=32, depth=4, num_heads=4),
        partial(ConvViTFPN, img_size=64, embed_dim=(8, 12, 24), depth=(1, 1, 1), num_heads=4, global_block_indexes=[0]),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_detector_file_loads_by_name(bottom_up, suffix, tmp_path):
    trained, fresh = detector(bottom_up()), detector(bottom_up())
    save_weights(trained.state_dict(), tmp_path / f"detector{suffix}")
    load_weights(fresh, str(tmp_path / f"detector{suffix}"), strict=True)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


def test_oblong_mae_into_mimdet():
    """Encoder and decoder have a table each."""
    state = mae(img_size=(64, 144))
    ours, _ = convert_into(detector(MIMDetBackbone(**MIMDET)), state)
    for part, name in (("encoder", "pos_embed"), ("decoder", "decoder_pos_embed")):
        grid = resize_pos_embed(state[name][:, 1:], (4, 9), (6, 6))
        expected = torch.cat([state[name][:, :1], grid], 1)
        assert torch.equal(ours[f"backbone.bottom_up.{part}.{name}"], expected)
