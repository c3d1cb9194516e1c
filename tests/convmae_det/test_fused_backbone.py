"""The backbone that joins its stages gives what pretraining's decoder sees, and takes pretraining files whole."""

import pytest
import torch

from convmae_det import ConvViT, FusedConvViT
from convmae_det.baselines import DenseConvViT
from pretrain.checkpoints.convert import Target, check_loads, convert
from pretrain.checkpoints.recognition import recognise
from pretrain.models import build_model

SIZES = dict(embed_dim=(8, 16, 24), depth=(1, 2, 2), num_heads=4)
PATCHES = [(4, 2, 2), (4, 2, 1)]


class Detector(torch.nn.Module):
    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.backbone = torch.nn.Module()
        self.backbone.net = net


def pretrained(patch_size, img_size=64):
    model = build_model("convmae_convvit_tiny_patch8", img_size=img_size, patch_size=patch_size, **SIZES)
    torch.nn.init.normal_(model.norm.weight, 1.0, 0.3)
    return model


@pytest.mark.parametrize("patch_size", PATCHES)
def test_output_is_what_the_decoder_of_pretraining_sees(patch_size):
    autoencoder = pretrained(patch_size).double()
    net = FusedConvViT(img_size=64, pretrain_img_size=64, patch_size=patch_size, **SIZES).double()
    state, own = autoencoder.state_dict(), net.state_dict()
    net.load_state_dict({name: state[name] for name in own})
    for blocks in (net.blocks1, net.blocks2):  # 1e-6 in detection, 1e-5 in pretraining
        for block in blocks:
            block.norm1.eps = block.norm2.eps = 1e-5
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    side = autoencoder.grid_size[0]
    in_order = torch.arange(side**2, dtype=torch.float64).expand(2, -1) / side**2
    latent, _, _ = autoencoder.forward_encoder(images, 0.0, in_order)
    ours = net(images)["last_feat"].flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, latent)


def test_conversion_fills_it(tmp_path):
    torch.save({"model": pretrained((4, 2, 1)).state_dict()}, tmp_path / "encoder.pth")
    options = dict(img_size=64, pretrain_img_size=64, patch_size=(4, 2, 1), use_rel_pos=True, **SIZES)
    fused, plain = (Detector(net(**options)) for net in (FusedConvViT, ConvViT))
    for model, joins in ((fused, True), (plain, False)):
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        state, report = convert(recognise(tmp_path / "encoder.pth"), Target.DETECTION, shapes)
        check_loads(model, state, report)
        assert all(".rel_pos_" in name for name in report.missing)
        assert ("norm.weight" in report.dropped) is not joins
        assert ("backbone.net.stage1_output_decode.weight" in state) is joins

    torch.save({"model": fused.state_dict()}, tmp_path / "detector.pth")
    back, _ = convert(recognise(tmp_path / "detector.pth"), Target.PRETRAIN)
    expected = pretrained((4, 2, 1)).state_dict().keys() & back.keys()
    assert {"norm.weight", "stage2_output_decode.bias"} <= expected
    assert all(torch.equal(back[name], fused.state_dict()[f"backbone.net.{name}"]) for name in expected)


def test_files_that_join_nothing(tmp_path):
    torch.save({"model": ConvViT(img_size=64, patch_size=(4, 2, 1), **SIZES).state_dict()}, tmp_path / "trunk.pth")
    model = Detector(FusedConvViT(img_size=64, patch_size=(4, 2, 1), **SIZES))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state, report = convert(recognise(tmp_path / "trunk.pth"), Target.DETECTION, shapes)
    check_loads(model, state, report)
    assert report.missing["backbone.net.norm.bias"] == "the file does not join the stages; trained from scratch"


def test_dense_form_joins_them_too():
    net = FusedConvViT(img_size=64, **SIZES, use_rel_pos=True, window_size=2, window_block_indexes=[0]).double()
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    torch.testing.assert_close(net(images)["last_feat"], DenseConvViT(net)(images)["last_feat"])


def test_every_parameter_has_a_gradient():
    net = FusedConvViT(img_size=64, patch_size=(4, 2, 1), **SIZES)
    net(torch.randn(1, 3, 64, 64))["last_feat"].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
