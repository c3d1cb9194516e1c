"""VideoConvMAE against a dense masked computation, what its tubes must guarantee, and what it is to images."""

import pytest
import torch
from parity import gradient_errors, relative_error

from pretrain.benchmarks.video_baselines import DenseVideoConvMAE
from pretrain.models import VideoConvMAE, build_model
from pretrain.models.autoencoder import MaskedAutoencoderConvViT, ReconstructionLoss
from pretrain.models.video.masking import tube_mask
from pretrain.models.video.positions import sincos_clip_pos_embed

TINY = dict(
    img_size=64,
    num_frames=6,
    embed_dim=(8, 16, 24),
    depth=(2, 1, 2),
    num_heads=4,
    decoder_embed_dim=16,
    decoder_depth=1,
    decoder_num_heads=4,
)


def clip(model, batch=2, **options):
    return torch.randn(batch, model.in_chans, model.num_frames, *model.img_size, **options)


def noise(model, batch=2):
    return torch.rand(batch, model.grid_size[0] * model.grid_size[1])


def masked_pixels(model, mask):
    """Boolean `(B, 1, F, H, W)`."""
    values = model.tubelet_size * model.stride**2 * model.in_chans
    return model.unpatchify(mask.unsqueeze(-1).expand(-1, -1, values))[:, :1].bool()


@pytest.mark.parametrize("conv_frames", [1, 3])
@pytest.mark.parametrize(
    "config",
    [
        dict(),
        dict(multi_scale=False, norm_pix_loss=False, num_frames=4),
        dict(img_size=(32, 48), patch_size=(4, 2, 1), in_chans=2, tubelet_size=3),
        dict(img_size=(96, 64), tubelet_size=1, num_frames=1, in_chans=1, patch_size=(2, 4, 2)),
    ],
)
def test_equals_dense_computation(conv_frames, config):
    """Any size, tubelet and channel count: the same loss, predictions and gradients as with dense masked stages."""
    model = VideoConvMAE(**TINY | dict(conv_frames=conv_frames) | config).double()
    clips, tubes = clip(model, dtype=torch.float64), noise(model)
    loss, pred, mask = model(clips, 0.75, tubes)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    assert all(g.isfinite().all() for g in gradients.values())
    model.zero_grad()
    dense_loss, dense_pred, dense_mask = DenseVideoConvMAE(model)(clips, 0.75, tubes)
    dense_loss.backward()
    assert torch.equal(mask, dense_mask)
    assert relative_error(loss, dense_loss) <= 1e-9 and relative_error(pred, dense_pred) <= 1e-9
    assert max(gradient_errors(model, gradients).values()) <= 1e-9
    model.zero_grad()
    training_loss = ReconstructionLoss(model)(clips, 0.75, tubes)
    training_loss.backward()
    assert relative_error(training_loss, loss) <= 1e-9
    assert max(gradient_errors(model, gradients).values()) <= 1e-9


@pytest.mark.parametrize("conv_frames", [1, 3])
def test_float32_agrees_to_1e_5(conv_frames):
    model = VideoConvMAE(**TINY, conv_frames=conv_frames)
    clips, tubes = clip(model), noise(model)
    loss, pred, _ = model(clips, 0.75, tubes)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    dense_loss, dense_pred, _ = DenseVideoConvMAE(model)(clips, 0.75, tubes)
    dense_loss.backward()
    assert relative_error(loss, dense_loss) <= 1e-5 and relative_error(pred, dense_pred) <= 1e-5
    assert max(gradient_errors(model, gradients).values()) <= 1e-5


@pytest.mark.parametrize("conv_frames", [1, 3])
@pytest.mark.parametrize("value", [7.0, float("nan")])
def test_masked_pixels_do_not_leak(conv_frames, value):
    model = VideoConvMAE(**TINY, conv_frames=conv_frames)
    clips, tubes = clip(model), noise(model)
    latent, mask, _ = model.forward_encoder(clips, 0.75, tubes)
    latent.sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    changed = torch.where(masked_pixels(model, mask), value, clips).requires_grad_()
    changed_latent = model.forward_encoder(changed, 0.75, tubes)[0]
    assert torch.equal(changed_latent, latent)
    changed_latent.sum().backward()
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters() if p.grad is not None)
    assert not changed.grad[masked_pixels(model, mask).expand_as(clips)].any() and changed.grad.any()


def test_masks_are_tubes():
    masks = tube_mask(torch.rand(2, 196), 0.9)
    assert masks.ids_keep.shape == (2, 20)
    model = VideoConvMAE(**TINY)
    mask = model(clip(model), 0.75, noise(model))[2].view(2, 3, 16)
    assert torch.equal(mask[:, :1].expand_as(mask), mask) and mask.sum() == 2 * 3 * 12


def test_1x5x5_equals_frame_wise_image_stages():
    """With one frame a slot, stages 1 and 2 give each frame what an image model with the same weights gives it."""
    sizes = {k: v for k, v in TINY.items() if not k.startswith(("num_frames", "img_size"))}
    model = VideoConvMAE(**TINY, tubelet_size=1).double()
    image_model = MaskedAutoencoderConvViT(img_size=64, **sizes).double()
    state = {n: t for n, t in model.state_dict().items() if n.startswith(("patch_embed", "blocks1", "blocks2"))}
    state["patch_embed1.proj.weight"] = state["patch_embed1.proj.weight"].squeeze(2)
    image_model.load_state_dict(state, strict=False)
    clips = clip(model, dtype=torch.float64)
    frames = clips.transpose(1, 2).flatten(0, 1)
    for ours, image in zip(model.forward_conv_stages(clips), image_model.forward_conv_stages(frames), strict=True):
        assert relative_error(ours.flatten(0, 1), image) <= 1e-12


def test_3x5x5_looks_at_other_slots():
    for conv_frames, moves in ((1, False), (3, True)):
        model = VideoConvMAE(**TINY, conv_frames=conv_frames)
        clips = clip(model, 1)
        stage1 = model.forward_conv_stages(clips)[0]
        clips[:, :, :2] += 1
        changed = (model.forward_conv_stages(clips)[0] != stage1).flatten(2).any(2)[0]
        assert changed.tolist() == [True, moves, moves]  # two blocks reach two slots


def test_nothing_masked_equals_the_unmasked_trunk():
    model = VideoConvMAE(**TINY, conv_frames=3, multi_scale=False).double()
    clips = clip(model, dtype=torch.float64)
    x = model.forward_conv_stages(clips)[2]
    x = model.forward_blocks(2, x.flatten(1, 3) + model.pos_embed)
    order = torch.arange(16.0).expand(2, 16)
    torch.testing.assert_close(model.forward_encoder(clips, 0.0, order)[0], model.norm(x))
    with pytest.raises(ValueError, match="masks no patch"):
        model(clips, 0.0)


def test_patchify_round_trip():
    model = VideoConvMAE(**TINY | dict(img_size=(32, 64)))
    clips = clip(model)
    cubes = model.patchify(clips)
    # Slot 1, row 1, column 1 of the grid: frames 2 and 3
    expected = clips[0, :, 2:4, 16:, 16:32].permute(1, 2, 3, 0)
    assert torch.equal(cubes[0, 8 + 5].view(2, 16, 16, 3), expected)
    assert torch.equal(model.unpatchify(cubes), clips)


def test_targets_are_standardised_per_cube_and_channel():
    model = VideoConvMAE(**TINY).double()
    clips, tubes = clip(model, dtype=torch.float64), noise(model)
    scale, shift = torch.rand(2, 1, 3, 1, 1, 1, dtype=torch.float64) + 1
    loss, pred, mask = model(clips, 0.75, tubes)
    cubes = model.patchify(clips).view(2, 48, 512, 3)
    target = ((cubes - cubes.mean(2, keepdim=True)) / (cubes.std(2, keepdim=True) + 1e-6)).flatten(2)
    expected = ((pred - target) ** 2).mean(2)[mask.bool()].mean()
    assert relative_error(loss, expected) <= 1e-12
    moved = model.patchify(clips * scale + shift).view(2, 48, 512, 3)
    moved = ((moved - moved.mean(2, keepdim=True)) / (moved.std(2, keepdim=True) + 1e-6)).flatten(2)
    assert relative_error(moved, target) <= 1e-5


def test_positions_mark_place_and_time():
    table = sincos_clip_pos_embed(24, (3, 2, 4))
    assert table.shape == (1, 24, 24)
    slots = table.view(3, 8, 24)
    assert torch.allclose(slots - slots[:, :1], slots[:1] - slots[:1, :1], atol=1e-6)  # space is the same in each slot
    assert len(torch.unique(table[0], dim=0)) == 24


def test_activation_checkpointing_and_autocast():
    model = VideoConvMAE(**TINY | dict(act_checkpoint=True, fp32_decoder=True, conv_frames=3))
    clips, tubes = clip(model), noise(model)
    loss = model.forward_loss(clips, 0.75, tubes)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.eval().zero_grad()  # blocks are recomputed in training mode only
    model.forward_loss(clips, 0.75, tubes).backward()
    assert max(gradient_errors(model, gradients).values()) == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.forward_loss(clips, 0.75, tubes), loss, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("build", "call", "message"),
    [
        (dict(img_size=(64, 70)), None, "64x70 is not divisible by the total stride 16"),
        (dict(num_frames=5), None, "A clip of 5 frames is not made of time slots of 2 frames"),
        (dict(conv_frames=5), None, "conv_frames must be 1 .* or 3 .*, got 5"),
        ({}, dict(clips=torch.zeros(1, 3, 4, 64, 64)), "do not fit a model of 3 channels, 6 frames"),
        ({}, dict(clips=torch.zeros(1, 3, 6, 64, 64), mask_ratio=1.0), "at least 0 and below 1, got 1.0"),
        ({}, dict(clips=torch.zeros(1, 3, 6, 64, 64), noise=torch.zeros(1, 4)), r"noise must have shape \(1, 16\)"),
    ],
)
def test_bad_arguments(build, call, message):
    with pytest.raises(ValueError, match=message):
        VideoConvMAE(**TINY | build)(**call)


def test_named_models():
    with torch.device("meta"):
        model = build_model("videoconvmae_convvit_base_patch16")
    assert model.decoder_pred.out_features == 1536 and model.clip_grid == (8, 14, 14)
    assert model.patch_embed1.proj.weight.shape == (256, 3, 2, 4, 4)
    assert len(model.decoder_blocks) == 4 and model.decoder_embed.out_features == 384
