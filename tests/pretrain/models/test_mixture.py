"""Losses of several targets, and of visible tokens: identities, and what must not change with pixels alone."""

import pytest
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pretrain.models.autoencoder import MaskedAutoencoderConvViT, ReconstructionLoss
from pretrain.models.convmae_v2 import MaskedAutoencoderConvViTv2
from pretrain.models.mixture import MixtureLoss, add_target_heads
from pretrain.models.teachers import EmaTeacher, convvit_teacher

IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
TINY = dict(
    img_size=64,
    embed_dim=(8, 16, 24),
    depth=(1, 1, 1),
    num_heads=4,
    decoder_embed_dim=16,
    decoder_depth=2,
    decoder_num_heads=4,
    norm_pix_loss=True,
)
VARIANTS = {
    "convmae": (MaskedAutoencoderConvViT, {}),
    "fastconvmae": (MaskedAutoencoderConvViT, dict(masking="complementary")),
    "convmaev2": (MaskedAutoencoderConvViTv2, {}),
}


def make_model(variant, targets=("rgb",), mimic=False, **overrides):
    """A model of a fixed seed with the heads of its targets, all of which have 40 channels."""
    torch.manual_seed(1)
    version, config = VARIANTS[variant]
    model = version(**TINY | config | overrides)
    dims = {name: None if name == "rgb" else 40 for name in targets}
    add_target_heads(model, dims, 40 if mimic else None)
    return model


def make_teacher():
    """An own encoder of another size, whose 16 patches are those of the students."""
    torch.manual_seed(2)
    return convvit_teacher(MaskedAutoencoderConvViT(**TINY | dict(embed_dim=(8, 16, 40))), IMAGENET)


def gradients(loss, model):
    model.zero_grad(set_to_none=True)
    (loss[0] if isinstance(loss, tuple) else loss).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture
def batch():
    return torch.randn(2, 3, 64, 64), 0.75, torch.rand(2, 16)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pixels_alone_are_the_published_model(variant, batch):
    version, config = VARIANTS[variant]
    torch.manual_seed(1)
    plain = version(**TINY | config)
    model = make_model(variant)
    assert list(model.state_dict()) == list(plain.state_dict())
    loss, parts = MixtureLoss(model, {"rgb": 1.0}, {})(*batch)
    expected = ReconstructionLoss(plain)(*batch)
    assert torch.equal(loss, expected) and torch.equal(parts, expected[None])
    theirs = gradients(expected, plain)
    assert all(torch.equal(grad, theirs[name]) for name, grad in gradients(loss, model).items())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("extra", ["own", "mimic"])
def test_a_weight_of_zero_gives_the_gradients_without_the_target(variant, extra, batch):
    plain, teacher = make_model(variant), make_teacher()
    targets = ("rgb", "own") if extra == "own" else ("rgb",)
    model = make_model(variant, targets, mimic=extra == "mimic")
    expected = gradients(ReconstructionLoss(plain)(*batch), plain)
    found = gradients(MixtureLoss(model, {"rgb": 1.0, extra: 0.0}, {extra: teacher})(*batch), model)
    assert found.keys() - expected.keys() == {n for n in found if n.startswith(("decoder_targets.own", "mimic_head"))}
    for name, grad in found.items():
        assert torch.equal(grad, expected.get(name, torch.zeros_like(grad))), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("targets", [("rgb", "own", "other"), ("own",)])
def test_every_parameter_gets_a_finite_gradient(variant, targets, batch):
    model = make_model(variant, targets, mimic=True, act_checkpoint=True)
    names = [*targets, "mimic"]
    teacher = make_teacher()
    loss = MixtureLoss(model, dict.fromkeys(names, 1.0), {name: teacher for name in names if name != "rgb"})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, parts = loss(*batch)
    found = gradients(total, model)
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in found.values())
    assert parts.shape == (len(names),) and parts.isfinite().all() and not parts.requires_grad
    assert ("decoder_pred.weight" in found) == ("rgb" in targets)


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_by_their_definitions(variant, batch):
    """Smooth L1 on layer-normalised features of masked patches; 2 - 2 cos on visible ones."""
    imgs = batch[0]
    model, teacher = make_model(variant, ("rgb", "own"), mimic=True), make_teacher()
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    loss = MixtureLoss(model, {"rgb": 1.0, "own": 0.5, "mimic": 2.0}, {"own": teacher, "mimic": teacher})
    total, parts = loss(*batch)
    assert len(calls) == 1  # however many targets and views
    features = teacher(imgs, (4, 4))
    latent, mask, ids_restore = model.forward_encoder(*batch)
    views = len(mask) // len(imgs)
    P = model.num_prefix_tokens
    x = model.decoder_blocks[0](model.embed_decoder(latent, ids_restore))
    head = model.decoder_targets["own"]
    pred = head.pred(head.norm(head.block(x)))[:, P:]
    target = F.layer_norm(features, (40,)).repeat(views, 1, 1)
    own = F.smooth_l1_loss(pred, target, reduction="none").mean(-1)[mask.bool()].mean()
    cosines = F.cosine_similarity(
        model.mimic_head(latent[:, P:]),
        features.repeat(views, 1, 1).gather(1, ids_restore.argsort(1)[:, :4, None].expand(-1, -1, 40)),
        dim=-1,
    )
    rgb = model.forward_loss(*batch)
    torch.testing.assert_close(parts, torch.stack([rgb, own, (2 - 2 * cosines).mean()]))
    torch.testing.assert_close(total, parts @ torch.tensor([1.0, 0.5, 2.0]))


@pytest.mark.parametrize("variant", ["convmae", "convmaev2"])
def test_mimicry_is_zero_if_the_teacher_is_the_student(variant):
    """With everything visible, and a head that changes nothing."""
    version, config = VARIANTS[variant]
    model = version(**TINY | config).double()
    add_target_heads(model, {"rgb": None}, mimic_dim=24)
    with torch.no_grad():
        model.mimic_head.weight.copy_(torch.eye(24))
    model.double()
    loss = MixtureLoss(model, {"mimic": 1.0}, {"mimic": EmaTeacher(model, IMAGENET)})
    imgs = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert loss(imgs, 0.0)[0].item() == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        model.mimic_head.weight.neg_()
    assert loss(imgs, 0.0)[0].item() == pytest.approx(4, abs=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_masked_pixels_reach_no_visible_token(variant, batch):
    """What mimicry compares, NaN in every pixel that the first view does not show."""
    imgs, ratio, noise = batch
    model = make_model(variant, mimic=True)
    latent, mask, _ = model.forward_encoder(*batch)
    values = mask[:2, :, None].expand(-1, -1, 16 * 16 * 3)
    damaged = torch.where(model.unpatchify(values).bool(), torch.nan, imgs)
    found = model.mimic_head(model.forward_encoder(damaged, ratio, noise)[0][:2])
    assert found.isfinite().all() and torch.equal(found, model.mimic_head(latent[:2]))


def test_compatible_names_and_the_same_start():
    """A mixture has what the published model has, with the weights that the seed gives it, and more."""
    plain, model = (make_model("fastconvmae", targets).state_dict() for targets in (("rgb",), ("rgb", "clip")))
    assert all(torch.equal(model[name], tensor) for name, tensor in plain.items())
    assert {name.split(".")[0] for name in model.keys() - plain.keys()} == {"decoder_targets"}
    without = make_model("fastconvmae", ("clip",)).state_dict()
    assert {name for name in plain.keys() - without.keys() if not name.startswith("decoder_blocks.1.")} == {
        "decoder_norm.weight",
        "decoder_norm.bias",
        "decoder_pred.weight",
        "decoder_pred.bias",
    }


def test_a_compiler_can_trace_all_losses(batch):
    """Tracing is what differs between models; that compiled code computes the same is tested with pixels alone."""
    model = make_model("convmae", ("rgb", "own"), mimic=True)
    loss = MixtureLoss(model, {"rgb": 1.0, "own": 1.0, "mimic": 1.0}, dict.fromkeys(("own", "mimic"), make_teacher()))
    expected, _ = loss(*batch)
    wanted = {name: g.clone() for name, g in gradients(expected, model).items()}
    traced, _ = torch.compile(loss, backend="eager")(*batch)
    found = gradients(traced, model)
    assert torch.equal(traced, expected)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient)
