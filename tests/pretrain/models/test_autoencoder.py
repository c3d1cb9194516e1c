"""ConvMAE and FastConvMAE against the published code's outputs, and what their masks must guarantee."""

import pytest
import torch
from parity import gradient_errors, relative_error

from pretrain.benchmarks.baselines import DenseConvMAE
from pretrain.models import MaskedAutoencoderConvViT, build_model
from pretrain.models.autoencoder import ReconstructionLoss
from pretrain.models.convmae_v2 import MaskedAutoencoderConvViTv2
from pretrain.models.pos_embed import sincos_pos_embed

TINY = dict(
    img_size=64,
    embed_dim=(8, 16, 24),
    depth=(2, 1, 2),
    num_heads=4,
    decoder_embed_dim=16,
    decoder_depth=1,
    decoder_num_heads=4,
)


def masked_pixels(model, mask):
    """Boolean `(M, 1, H, W)`."""
    values = model.stride**2 * model.in_chans
    return model.unpatchify(mask.unsqueeze(-1).expand(-1, -1, values))[:, :1].bool()


@pytest.mark.parametrize(
    ("name", "masking"), [("convmae_pretrain_tiny", "random"), ("fastconvmae_pretrain_tiny", "complementary")]
)
def test_parity_with_published_code(golden, name, masking):
    reference = golden(name)
    config = {k: v for k, v in reference.config.items() if k != "mask_ratio"}
    model = MaskedAutoencoderConvViT(norm_pix_loss=True, masking=masking, **config)
    model.load_state_dict(reference.group("param"))
    images, noise = reference["input.images"], reference["input.noise"]

    loss, pred, mask = model(images, mask_ratio=0.75, noise=noise)
    assert relative_error(loss, reference["output.loss_norm_pix"][0]) <= 1e-5
    assert torch.equal(mask, reference["output.mask"])
    assert relative_error(pred[:, ::14], reference["output.pred_every_14th_patch"]) <= 1e-5
    latent, mask, _ = model.forward_encoder(images, 0.75, noise)
    assert relative_error(latent, reference["output.latent"]) <= 1e-5
    assert torch.equal(mask, reference["output.mask"])

    loss.backward()
    errors = gradient_errors(model, reference.group("grad"))
    assert max(errors.values()) <= 1e-4, errors
    model.zero_grad()
    training_loss = ReconstructionLoss(model)(images, 0.75, noise)
    assert relative_error(training_loss, loss) <= 1e-6
    training_loss.backward()
    errors = gradient_errors(model, reference.group("grad"))
    assert max(errors.values()) <= 1e-4, errors

    model.norm_pix_loss = False
    assert relative_error(model(images, 0.75, noise)[0], reference["output.loss_pixel"][0]) <= 1e-5


@pytest.mark.parametrize("family", ["convmae", "fastconvmae"])
def test_names_and_shapes_as_published(reference_names, family):
    with torch.device("meta"):
        model = build_model(f"{family}_convvit_base_patch16")
    shapes = {name: list(t.shape) for name, t in model.state_dict().items()}
    assert shapes == reference_names[f"{family}_base_pretrain"]
    count = sum(p.numel() for p in model.parameters())
    assert count == reference_names["num_params"][f"{family}_base_pretrain"]


def test_position_tables_as_published(reference_names):
    for name, dim in (("pos_embed", 768), ("decoder_pos_embed", 512)):
        table, expected = sincos_pos_embed(dim, (14, 14)), reference_names["sincos_base"][name]
        assert list(table.shape) == expected["shape"]
        for key, values in (("first8", table[0, 17, :8]), ("mid8", table[0, 17, dim // 2 :][:8])):
            torch.testing.assert_close(values, torch.tensor(expected[key]), atol=1e-6, rtol=0)
        assert table.double().sum().item() == pytest.approx(expected["sum"], rel=1e-6)
        assert table.double().abs().sum().item() == pytest.approx(expected["abs_sum"], rel=1e-6)


CLASSES = {"v1": MaskedAutoencoderConvViT, "v2": MaskedAutoencoderConvViTv2}
VARIANTS = [("v1", "random"), ("v1", "complementary"), ("v2", "random")]


@pytest.mark.parametrize(("version", "masking"), VARIANTS)
@pytest.mark.parametrize(
    ("patch_size", "img_size", "in_chans"),
    [
        ((4, 2, 2), (160, 224), 3),
        ((4, 2, 4), 128, 1),
        ((8, 2, 2), 128, 3),
        ((2, 2, 1), (32, 48), 2),
        ((4, 4, 2), 64, 3),
    ],
)
def test_equals_dense_computation(version, masking, patch_size, img_size, in_chans):
    """Any size, patch size and channel count: the same loss, predictions and gradients as with dense masked stages."""
    config = dict(img_size=img_size, patch_size=patch_size, in_chans=in_chans, masking=masking, norm_pix_loss=True)
    model = CLASSES[version](**TINY | config).double()
    imgs = torch.randn(2, in_chans, *model.img_size, dtype=torch.float64)
    noise = torch.rand(2, model.grid_size[0] * model.grid_size[1])
    loss, pred, mask = model(imgs, 0.75, noise)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    assert all(g.isfinite().all() for g in gradients.values())

    model.zero_grad()
    dense_loss, dense_pred, dense_mask = DenseConvMAE(model)(imgs, 0.75, noise)
    dense_loss.backward()
    torch.testing.assert_close(loss, dense_loss)
    torch.testing.assert_close(pred, dense_pred)
    assert torch.equal(mask, dense_mask)
    assert max(gradient_errors(model, gradients).values()) <= 1e-9


@pytest.mark.parametrize("version", CLASSES)
@pytest.mark.parametrize("value", [7.0, float("nan"), float("inf")])
def test_masked_pixels_do_not_leak(value, version):
    model = CLASSES[version](**TINY)
    imgs, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 16)
    latent, mask, _ = model.forward_encoder(imgs, 0.75, noise)
    latent.sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    changed = torch.where(masked_pixels(model, mask), value, imgs).requires_grad_()
    changed_latent = model.forward_encoder(changed, 0.75, noise)[0]
    assert torch.equal(changed_latent, latent)
    changed_latent.sum().backward()
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters() if p.grad is not None)
    assert changed.grad.isfinite().all()
    assert not changed.grad[masked_pixels(model, mask).expand_as(imgs)].any()
    assert changed.grad.any()


def test_visible_pixels_of_neighbours_do_matter():
    """The guard of the test above: the same change, in visible patches, moves the latent of the others."""
    model = MaskedAutoencoderConvViT(**TINY)
    imgs = torch.randn(1, 3, 64, 64)
    noise = torch.arange(16.0)[None]  # the first row of patches is visible
    latent = model.forward_encoder(imgs, 0.75, noise)[0]
    imgs[..., :16, :16] = 7.0
    assert not torch.equal(model.forward_encoder(imgs, 0.75, noise)[0][:, 1:], latent[:, 1:])


@pytest.mark.parametrize(("version", "patch_size"), [("v1", (4, 2, 2)), ("v1", (2, 4, 2)), ("v2", (4, 2, 2))])
def test_whole_images_equal_a_mask_that_shows_everything(version, patch_size):
    model = CLASSES[version](**TINY | dict(patch_size=patch_size, img_size=(32, 48))).double()
    imgs = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    latent = model.forward_encoder(imgs, 0.0, torch.arange(6.0).expand(2, 6))[0]
    assert latent.shape == (2, model.num_prefix_tokens + 6, 24)
    torch.testing.assert_close(model.forward_features(imgs), latent)


def test_nothing_masked_equals_the_unmasked_trunk():
    model = MaskedAutoencoderConvViT(**TINY)
    imgs = torch.randn(2, 3, 64, 64)
    order = torch.arange(16.0).expand(2, 16)
    stage1, stage2, x = model.forward_conv_stages(imgs)
    x = model.forward_blocks(2, x.flatten(1, 2) + model.pos_embed)
    # (B, H, W, C) -> (B, C, H, W) -> (B, L, C)
    skip1 = model.stage1_output_decode(stage1.permute(0, 3, 1, 2)).flatten(2).permute(0, 2, 1)
    skip2 = model.stage2_output_decode(stage2.permute(0, 3, 1, 2)).flatten(2).permute(0, 2, 1)
    torch.testing.assert_close(model.forward_encoder(imgs, 0.0, order)[0], model.norm(x + skip1 + skip2))
    with pytest.raises(ValueError, match="masks no patch"):
        model(imgs, 0.0)


def test_patchify_round_trip():
    model = MaskedAutoencoderConvViT(**TINY | dict(img_size=(32, 64)))
    imgs = torch.randn(2, 3, 32, 64)
    patches = model.patchify(imgs)
    assert torch.equal(patches[0, 5].view(16, 16, 3), imgs[0, :, 16:, 16:32].permute(1, 2, 0))
    assert torch.equal(model.unpatchify(patches), imgs)


@pytest.mark.parametrize("masking", ["random", "complementary"])
def test_autocast(masking):
    model = MaskedAutoencoderConvViT(**TINY | dict(masking=masking, fp32_decoder=True))
    imgs, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 16)
    expected = model.forward_loss(imgs, 0.75, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, pred, _ = model(imgs, 0.75, noise)
    assert pred.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_activation_checkpointing_changes_nothing():
    model = MaskedAutoencoderConvViT(**TINY | dict(act_checkpoint=True))
    imgs, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 16)
    model.forward_loss(imgs, 0.75, noise).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.eval().zero_grad()  # blocks are recomputed in training mode only
    model.forward_loss(imgs, 0.75, noise).backward()
    assert max(gradient_errors(model, gradients).values()) == 0


@pytest.mark.parametrize(
    ("build", "call", "message"),
    [
        (dict(img_size=(64, 70)), None, "64x70 is not divisible by the total stride 16"),
        (dict(masking="block"), None, "masking must be one of random, complementary, got 'block'"),
        ({}, dict(imgs=torch.zeros(1, 3, 64, 96)), r"shape \(1, 3, 64, 96\) do not fit a model of 3 channels"),
        ({}, dict(imgs=torch.zeros(1, 1, 64, 64)), r"shape \(1, 1, 64, 64\) do not fit"),
        (
            {},
            dict(imgs=torch.zeros(1, 3, 64, 64), mask_ratio=1.0),
            "mask_ratio must be at least 0 and below 1, got 1.0",
        ),
        ({}, dict(imgs=torch.zeros(1, 3, 64, 64), mask_ratio=0.99), "leaves none of the 16 patches visible"),
        (dict(masking="complementary"), dict(imgs=torch.zeros(1, 3, 64, 64), mask_ratio=0.6), "needs mask_ratio 0.75"),
        ({}, dict(imgs=torch.zeros(1, 3, 64, 64), noise=torch.zeros(1, 4)), r"noise must have shape \(1, 16\)"),
    ],
)
def test_bad_arguments(build, call, message):
    with pytest.raises(ValueError, match=message):
        model = MaskedAutoencoderConvViT(**TINY | build)
        model(**call)


@pytest.mark.slow
@pytest.mark.parametrize("masking", ["random", "complementary"])
def test_compiled_equals_eager(masking):
    model = MaskedAutoencoderConvViT(**TINY | dict(masking=masking))
    imgs, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 16)
    loss = model.forward_loss(imgs, 0.75, noise)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    compiled = torch.compile(ReconstructionLoss(model), fullgraph=True)(imgs, 0.75, noise)
    compiled.backward()
    torch.testing.assert_close(compiled, loss)
    assert max(gradient_errors(model, gradients).values()) <= 1e-4


def test_unknown_model():
    with pytest.raises(ValueError, match="no model 'convmae_xl'; choose one of convmae_convvit_tiny_patch8"):
        build_model("convmae_xl")
