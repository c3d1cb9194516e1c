"""Which files a classifier takes, and what becomes of their positions, norms and heads."""

import pytest
import torch
from published import EMBED_DIM, encoder_only, pretraining_file, scaled

from pretrain.checkpoints.classifier_weights import check_file_classes, load_classifier, load_trunk
from pretrain.common.files import save_atomically
from pretrain.models import ConvViT
from pretrain.models.convmae_v2 import ConvViTv2, MaskedAutoencoderConvViTv2
from pretrain.models.pos_embed import resize_pos_embed

SIZES = dict(embed_dim=EMBED_DIM, depth=(2, 2, 11), num_heads=4)


@pytest.fixture
def pretraining(tmp_path, reference_names):
    """A file shaped like the published ConvMAE-B, its decoder taken off."""
    state = encoder_only(scaled(reference_names["convmae_base_pretrain"]))
    save_atomically(pretraining_file(state), tmp_path / "convmae.pth")
    return tmp_path / "convmae.pth", state


def test_a_file_shaped_like_the_published_finetuned_one(tmp_path, reference_names):
    state = scaled(reference_names["convvit_base_classifier"])
    save_atomically({"model": state}, tmp_path / "finetuned.pth")
    model = ConvViT(**SIZES)
    load_classifier(model, tmp_path / "finetuned.pth")
    own = model.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], state[name]) for name in state)


def test_a_pretraining_file(pretraining):
    path, state = pretraining
    model = ConvViT(**SIZES, num_classes=5)
    head = model.head.weight.clone()
    load_trunk(model, path)
    own = model.state_dict()
    loaded = {name for name in own if name in state}
    assert own.keys() - loaded == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert all(torch.equal(own[name], state[name]) for name in loaded)
    assert torch.equal(model.head.weight, head) and model.fc_norm.weight.eq(1).all()


def test_the_first_token_takes_the_norm_of_pretraining(pretraining, caplog):
    """As the published linear-probe command does."""
    path, state = pretraining
    model = ConvViT(**SIZES, num_classes=5, global_pool=False)
    caplog.set_level("INFO")
    load_trunk(model, path)
    assert "norm on the mean token" not in caplog.text and "fc_norm" not in caplog.text
    assert torch.equal(model.norm.weight, state["norm.weight"])


def test_positions_are_resized_and_reported(pretraining, caplog):
    path, state = pretraining
    caplog.set_level("INFO")
    model = ConvViT(**SIZES, img_size=(160, 256))
    load_trunk(model, path)
    assert torch.equal(model.pos_embed, resize_pos_embed(state["pos_embed"], (14, 14), (10, 16)))
    assert "pos_embed resized from a grid of 14x14 to 10x16" in caplog.text


def test_positions_of_an_oblong_file(tmp_path):
    """The file's own arguments say how its positions lie."""
    model = ConvViT(**SIZES, img_size=(32, 128))
    args = {"input_size": [32, 128], "patch_size": [4, 2, 2]}
    save_atomically({"model": model.state_dict(), "args": args}, tmp_path / "a.pth")
    other = ConvViT(**SIZES, img_size=(32, 128))
    load_classifier(other, tmp_path / "a.pth")
    assert torch.equal(other.pos_embed, model.pos_embed)


def test_detectors_give_their_trunk(tmp_path, reference_names):
    state = scaled(reference_names["mask_rcnn_vitdet_convmae_b"])
    save_atomically({"model": state}, tmp_path / "detector.pth")
    model = ConvViT(**SIZES, num_classes=5)
    load_trunk(model, tmp_path / "detector.pth")
    name = "blocks3.10.mlp.fc2.weight"
    assert torch.equal(model.state_dict()[name], state[f"backbone.net.{name}"])


def test_a_head_for_other_classes_is_replaced_in_finetuning_only(tmp_path):
    save_atomically({"model": ConvViT(**SIZES, num_classes=7).state_dict()}, tmp_path / "seven.pth")
    load_trunk(ConvViT(**SIZES, num_classes=5), tmp_path / "seven.pth")
    with pytest.raises(ValueError, match=r"classifies 7 classes, but DATA has 2"):
        check_file_classes(tmp_path / "seven.pth", ["a", "b"], "DATA")


V2 = dict(embed_dim=(8, 16, 24), depth=(1, 1, 2), num_heads=4, img_size=64)


def v2_file(tmp_path, slot):
    """A ConvMAE-v2 file without its decoder, its positions with or without the class token's."""
    state = encoder_only(MaskedAutoencoderConvViTv2(**V2, decoder_embed_dim=8, decoder_num_heads=2).state_dict())
    state = {name: torch.randn_like(t) for name, t in state.items()}
    if not slot:
        state["pos_embed"] = state["pos_embed"][:, 1:]
    save_atomically({"model": state}, tmp_path / "v2.pth")
    return tmp_path / "v2.pth", state


@pytest.mark.parametrize("slot", [True, False])
@pytest.mark.parametrize("global_pool", [True, False])
def test_a_v2_file_in_its_classifier(tmp_path, slot, global_pool):
    path, state = v2_file(tmp_path, slot)
    model = ConvViTv2(**V2, num_classes=5, global_pool=global_pool)
    load_trunk(model, path)
    own = model.state_dict()
    loaded = {name for name in own if name in state} - {"pos_embed"}
    made = {"fc_norm.weight", "fc_norm.bias"} if global_pool else set()
    assert own.keys() - loaded == {"head.weight", "head.bias", "pos_embed", *made}
    assert all(torch.equal(own[name], state[name]) for name in loaded)
    assert torch.equal(own["pos_embed"][:, 1:], state["pos_embed"][:, int(slot) :])
    assert torch.equal(own["pos_embed"][:, :1], state["pos_embed"][:, :1] if slot else torch.zeros(1, 1, 24))
    wider = ConvViTv2(**V2 | dict(img_size=96), num_classes=5, global_pool=global_pool)
    load_trunk(wider, path)
    assert torch.equal(wider.pos_embed[:, 1:], resize_pos_embed(own["pos_embed"][:, 1:], (4, 4), (6, 6)))

    save_atomically({"model": own}, tmp_path / "finetuned.pth")
    again = ConvViTv2(**V2, num_classes=5, global_pool=global_pool)
    load_classifier(again, tmp_path / "finetuned.pth")
    assert all(torch.equal(again.state_dict()[name], own[name]) for name in own)


def test_class_tokens_that_one_side_lacks(tmp_path, pretraining, caplog):
    path, state = v2_file(tmp_path, True)
    model = ConvViT(**V2)
    with caplog.at_level("INFO"):
        load_trunk(model, path)
    assert torch.equal(model.pos_embed, state["pos_embed"][:, 1:])
    assert "dropped   cls_token: the model has none" in caplog.text
    assert "dropped   norm.weight, norm.bias: the classifier has fc_norm" in caplog.text
    with pytest.raises(ValueError, match="has no class token, which convvitv2 models are for; give --model convvit_"):
        load_trunk(ConvViTv2(**SIZES), pretraining[0])


def test_files_of_other_models(pretraining, tmp_path, reference_names):
    path, _ = pretraining
    with pytest.raises(ValueError, match=r"holds a ConvViT-other .* but the model is a ConvViT-tiny"):
        load_trunk(ConvViT(embed_dim=(32, 64, 128), depth=(1, 1, 4), num_heads=4), path)
    with pytest.raises(ValueError, match="has no classification head"):
        load_classifier(ConvViT(**SIZES), path)
