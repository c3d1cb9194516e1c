"""ConvViT against the published code's outputs and files, and timm's way of using it."""

import pytest
import timm
import torch
from parity import relative_error
from timm.optim import param_groups_layer_decay

import pretrain  # noqa: F401 (registers the models with timm)
from pretrain.models import CLASSIFIERS, ConvViT, build_model

TINY = dict(img_size=32, patch_size=(2, 2, 1), in_chans=1, embed_dim=(8, 12, 24), depth=(1, 1, 2), num_heads=4)


@pytest.mark.parametrize(("global_pool", "name"), [(True, "global_pool"), (False, "first_token")])
def test_parity_with_published_code(golden, global_pool, name):
    reference = golden("convvit_classifier_tiny")
    model = ConvViT(global_pool=global_pool, **reference.config)
    model.load_state_dict(reference.group(f"param_{name}"))
    assert relative_error(model(reference["input.images"]), reference[f"output.logits_{name}"]) <= 1e-5


def test_names_and_shapes_of_the_published_classifier(reference_names):
    with torch.device("meta"):
        model = build_model("convvit_base_patch16")
    assert {name: list(t.shape) for name, t in model.state_dict().items()} == reference_names["convvit_base_classifier"]


def test_parameter_groups_of_the_published_recipe(reference_names):
    with torch.device("meta"):
        model = build_model("convvit_base_patch16")
    names = {id(p): name for name, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.65)
    found = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    expected = reference_names["finetune_param_groups_convvit_base"]
    assert found.keys() == expected.keys()
    for name, group in expected.items():
        assert found[name] == pytest.approx((group["lr_scale"], group["weight_decay"]), rel=1e-12), name


def test_initialisation():
    model = ConvViT(num_classes=1000)
    assert model.blocks3[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.head.bias.any() and model.blocks3[0].norm1.weight.eq(1).all()


def test_every_parameter_is_trained():
    for global_pool in (True, False):
        model = ConvViT(**TINY, num_classes=5, global_pool=global_pool, drop_path_rate=0.2, act_checkpoint=True)
        model(torch.randn(2, 1, 32, 32)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_other_image_sizes_resize_positions():
    model = ConvViT(**TINY, num_classes=5).eval()
    assert model(torch.randn(2, 1, 48, 64)).shape == (2, 5)
    with pytest.raises(ValueError, match="30x32 is not divisible by the total stride 4"):
        model(torch.randn(2, 1, 30, 32))
    with pytest.raises(ValueError, match="global_pool must be True"):
        ConvViT(**TINY, global_pool="max")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_timm_knows_every_model(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    assert isinstance(model, ConvViT) and model.head.out_features == 7
    assert model.default_cfg["input_size"] == (3, *model.img_size)


def test_timm_interface():
    model = timm.create_model("convvit_tiny_patch8_32", in_chans=1, drop_path_rate=0.1).eval()
    imgs = torch.randn(2, 1, 32, 32)
    assert model.num_classes == 1000 and model.get_classifier() is model.head
    tokens = model.forward_features(imgs)
    assert tokens.shape == (2, 16, model.num_features)
    assert torch.equal(model.forward_head(tokens), model(imgs))
    torch.testing.assert_close(model.head(model.forward_head(tokens, pre_logits=True)), model(imgs))
    model.reset_classifier(3, "token")
    assert model(imgs).shape == (2, 3) and isinstance(model.fc_norm, torch.nn.Identity)
    model.reset_classifier(0)
    assert model(imgs).shape == (2, 128)
    model.reset_classifier(0, "")
    assert model(imgs).shape == (2, 16, 128)
    assert timm.create_model("convvit_tiny_patch8_32", num_classes=0, global_pool="token").num_classes == 0


def test_timm_features_only():
    features = timm.create_model("convvit_tiny_patch16", features_only=True).eval()
    assert features.feature_info.channels() == [32, 64, 128]
    assert features.feature_info.reduction() == [4, 8, 16]
    imgs = torch.randn(1, 3, 64, 96)
    assert [tuple(f.shape) for f in features(imgs)] == [(1, 32, 16, 24), (1, 64, 8, 12), (1, 128, 4, 6)]
    last = timm.create_model("convvit_tiny_patch16", features_only=True, out_indices=(-1,)).eval()
    last.load_state_dict(features.state_dict())
    assert torch.equal(last(imgs)[0], features(imgs)[2])


def test_intermediates_are_the_features_of_the_model():
    model = ConvViT(**TINY, num_classes=5, global_pool=False).eval()
    imgs = torch.randn(2, 1, 32, 32)
    tokens, grids = model.forward_intermediates(imgs, norm=True)
    assert torch.equal(tokens, model.forward_features(imgs)) and len(grids) == 3
    torch.testing.assert_close(grids[-1].flatten(2).transpose(1, 2), tokens)


def test_dropout_before_the_head():
    model = timm.create_model("convvit_tiny_patch8_32", num_classes=3, drop_rate=1.0)
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.train()(image), model.head.bias.expand(2, 3))
    assert model.eval()(image).std() > 0
    assert timm.create_model("convvit_tiny_patch8_32", drop_rate=0.0).head_drop.p == 0
