"""ConvMAE-v2: what its class token changes in pretraining and classification, and files of other sizes than its names.

Whether visible tokens alone are computed, and exactly, is tested for both versions in test_autoencoder.py.
"""

import pytest
import torch
from timm.optim import param_groups_layer_decay

from pretrain.common.files import save_atomically
from pretrain.models import build_model
from pretrain.models.autoencoder import DECODER_PREFIXES, encoder_weights
from pretrain.models.convmae_v2 import ConvViTv2, MaskedAutoencoderConvViTv2
from pretrain.names import classifier_of
from pretrain.training.args import parse_args
from pretrain.training.classification_args import parse_finetune_args
from pretrain.training.state import initialise_model

TINY = dict(img_size=32, embed_dim=(8, 16, 24), depth=(1, 1, 2), num_heads=4)
DECODER = dict(decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=4)


@pytest.mark.parametrize("size", ["small", "base", "large", "huge"])
def test_names_are_those_of_convmae_with_a_class_token_and_without_joined_stages(size):
    with torch.device("meta"):
        first, second = (build_model(f"{family}_convvit_{size}_patch16") for family in ("convmae", "convmaev2"))
    joints = {name for name in first.state_dict() if name.startswith("stage")}
    assert second.state_dict().keys() == first.state_dict().keys() - joints | {"cls_token"}
    assert second.pos_embed.shape[1] == first.pos_embed.shape[1] + 1
    assert classifier_of(f"convmaev2_convvit_{size}_patch16") == f"convvitv2_{size}_patch16"


def test_every_parameter_is_trained():
    model = MaskedAutoencoderConvViTv2(**TINY, **DECODER, norm_pix_loss=True)
    model.forward_loss(torch.randn(2, 3, 32, 32), 0.5).backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in trained.values())
    assert not model.pos_embed[:, 0].any() and not model.decoder_pos_embed[:, 0].any()


def test_the_class_token_stands_before_the_patches():
    model = ConvViTv2(**TINY, num_classes=5, global_pool=False).eval()
    imgs = torch.randn(2, 3, 32, 32)
    tokens, grids = model.forward_intermediates(imgs, norm=True)
    assert tokens.shape == (2, 1 + 4, 24) and torch.equal(tokens, model.forward_features(imgs))
    torch.testing.assert_close(grids[-1].flatten(2).transpose(1, 2), tokens[:, 1:])
    torch.testing.assert_close(model(imgs), model.head(tokens[:, 0]))
    model.reset_classifier(5, "avg")
    torch.testing.assert_close(model(imgs), model.head(model.fc_norm(model.forward_features(imgs)[:, 1:].mean(1))))
    assert model(torch.randn(2, 3, 48, 64)).shape == (2, 5)
    model(imgs).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_classifier_sees_what_pretraining_saw():
    pretrained, classifier = MaskedAutoencoderConvViTv2(**TINY, **DECODER), ConvViTv2(**TINY, global_pool=False)
    weights = {name: torch.randn_like(t) for name, t in encoder_weights(pretrained.state_dict()).items()}
    pretrained.load_state_dict(weights, strict=False)
    assert classifier.load_state_dict(weights, strict=False).unexpected_keys == []
    imgs = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(classifier.forward_features(imgs), pretrained.forward_features(imgs))


def test_layer_decay_puts_the_class_token_into_the_stem():
    model = ConvViTv2(**TINY, num_classes=5)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    found = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found["cls_token"] == found["pos_embed"] == (0.5**3, 0.0)


def test_sizes_are_read_off_the_file(tmp_path):
    """Published L and H files differ from their names in MLP ratio and patch size."""
    sizes = dict(patch_size=(2, 2, 4), mlp_ratio=(4, 3, 37 / 24 + 1e-9))
    there = MaskedAutoencoderConvViTv2(**TINY | sizes, **DECODER)
    path = tmp_path / "v2.pth"
    save_atomically({"model": encoder_weights(there.state_dict())}, path)
    run = [f"--init_weights={path}", f"--data_path={tmp_path}", f"--output_dir={tmp_path}", "--input_size=32"]
    args = parse_args(["--model=convmaev2_convvit_tiny_patch16", *run])
    assert args.patch_size == [2, 2, 4] and [int(24 * r) for r in args.mlp_ratio] == [96, 72, 37]
    assert parse_finetune_args(["--model=convvitv2_tiny_patch16", *run]).patch_size == [2, 2, 4]
    assert parse_args(["--model=convmaev2_convvit_tiny_patch16", *run, "--mlp_ratio=2"]).mlp_ratio == [2.0] * 3
    assert parse_args(["--model=convmae_convvit_tiny_patch16", *run]).patch_size == [4, 2, 2]
    here = MaskedAutoencoderConvViTv2(**TINY | dict(patch_size=args.patch_size, mlp_ratio=args.mlp_ratio), **DECODER)
    initialise_model(here, path)
    for name, tensor in here.state_dict().items():
        assert name.startswith(DECODER_PREFIXES) or torch.equal(tensor, there.state_dict()[name])
    with pytest.raises(ValueError, match="must be one number or one for each of the three stages"):
        parse_args(["--model=convmaev2_convvit_tiny_patch16", *run, "--mlp_ratio", "2", "3"])
    with pytest.raises(ValueError, match="--mlp_ratio must be above 0"):
        parse_args(["--model=convmaev2_convvit_tiny_patch16", *run, "--mlp_ratio", "-1"])
