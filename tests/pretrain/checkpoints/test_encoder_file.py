"""Networks from their files alone: sizes, heads, class tokens, and what is no encoder."""

import pytest
import torch
from published import mae_vit, scaled

from pretrain.checkpoints.convert import Target, convert
from pretrain.checkpoints.encoder_file import load_network
from pretrain.checkpoints.recognition import recognise
from pretrain.common.files import save_atomically
from pretrain.models import build_model
from pretrain.models.autoencoder import encoder_weights
from pretrain.models.classifier import ConvViT
from pretrain.models.encoder import ConvMAEEncoder

SIZES = dict(img_size=(32, 64), embed_dim=(8, 16, 24), depth=(1, 1, 2))
"""With the names' heads: 4."""


def written(tmp_path, state, **args):
    save_atomically({"model": state, "args": args}, tmp_path / "file.pth")
    return str(tmp_path / "file.pth")


@pytest.mark.parametrize("slot", [True, False])
@pytest.mark.parametrize("family", ["convmae", "fastconvmae", "convmaev2"])
def test_pretraining_files_give_what_the_decoder_saw(tmp_path, family, slot):
    name = f"{family}_convvit_tiny_patch16"
    model = build_model(name, **SIZES).eval()
    state = encoder_weights(model.state_dict())
    if not slot:
        state["pos_embed"] = state["pos_embed"][:, model.num_prefix_tokens :]
    network = load_network(written(tmp_path, state, model=name, input_size=[32, 64]))
    assert isinstance(network, ConvMAEEncoder) and network.img_size == (32, 64)
    imgs = torch.randn(2, 3, 32, 64)
    assert torch.equal(network.forward_features(imgs), model.forward_features(imgs))


@pytest.mark.parametrize("name", ["convvit_tiny_patch16", "convvitv2_tiny_patch16"])
@pytest.mark.parametrize("global_pool", [True, False])
def test_classifiers_give_their_last_block(tmp_path, name, global_pool):
    model = build_model(name, **SIZES, num_classes=3, global_pool=global_pool).eval()
    network = load_network(written(tmp_path, model.state_dict(), model=name, input_size=[32, 64]))
    assert isinstance(network, ConvViT) and network.num_prefix_tokens == model.num_prefix_tokens
    imgs = torch.randn(2, 3, 32, 64)
    last = [m.forward_intermediates(imgs, norm=True, intermediates_only=True)[-1] for m in (network.eval(), model)]
    assert torch.equal(*last)


def test_heads_of_files_that_do_not_name_their_model(tmp_path):
    """By the sizes, where they are those of one model."""
    model = build_model("convmae_convvit_tiny_patch16", img_size=32)
    assert load_network(written(tmp_path, encoder_weights(model.state_dict()))).blocks3[0].attn.num_heads == 4
    other = build_model("convmae_convvit_tiny_patch16", **SIZES)
    with pytest.raises(ValueError, match="does not say which model it holds, and none here has its sizes"):
        load_network(written(tmp_path, encoder_weights(other.state_dict())))


def test_detectors_give_their_trunk(tmp_path):
    model = build_model("convmae_convvit_tiny_patch16", img_size=32)
    detector, _ = convert(recognise(model.state_dict()), Target.DETECTION)
    network = load_network(written(tmp_path, detector))
    assert torch.equal(network.blocks3[1].mlp.fc1.weight, model.blocks3[1].mlp.fc1.weight)


def test_files_that_are_no_encoder(tmp_path, reference_names):
    with pytest.raises(ValueError, match="is no encoder to learn from: give a ConvViT's"):
        load_network(written(tmp_path, mae_vit(reference_names["mask_rcnn_vitdet_b"])))
    with pytest.raises(ValueError, match="is no encoder to learn from"):
        load_network(written(tmp_path, scaled(reference_names["upernet_convmae_base"])))
