"""Losses, what evaluation gives, and test-time augmentation of the segmentation model."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from naive_segmentation import slide
from omegaconf import OmegaConf
from segmentor import build_segmentor

import convmae_seg.segmentor
from convmae_seg import SlidingWindow
from convmae_seg.tta import SegmentorTTA
from lazyrun.modeling.tta import ScaleAndFlip, with_tta
from pretrain.common.errors import UserError

IGNORE = 255


def batch(n: int = 2, side: int = 64) -> list[dict]:
    labels = torch.randint(0, 5, (n, side, side))
    labels[:, :7] = IGNORE
    return [{"image": torch.randint(0, 256, (3, side, side), dtype=torch.uint8), "sem_seg": label} for label in labels]


@pytest.fixture
def model():
    """With weights that tell pixels apart."""
    model = build_segmentor()
    for head in (model.decode_head, model.auxiliary_head):
        torch.nn.init.normal_(head.conv_seg.weight, std=1.0)
    return model


def test_losses(model):
    model.decode_head.dropout.p = model.auxiliary_head.dropout.p = 0.0
    inputs = batch()
    losses = model(inputs)
    images = torch.stack([(x["image"] - model.pixel_mean) / model.pixel_std for x in inputs])
    labels = torch.stack([x["sem_seg"] for x in inputs])
    features = model.backbone(images)
    for name, head, weight in (("loss_decode", model.decode_head, 1.0), ("loss_aux", model.auxiliary_head, 0.4)):
        logits = F.interpolate(head(features), size=(64, 64), mode="bilinear", align_corners=False)
        labelled = (labels != IGNORE).float().mean()
        expected = weight * labelled * F.cross_entropy(logits, labels, ignore_index=IGNORE)
        torch.testing.assert_close(losses[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("images", [0.5, 1, 2, 3])
def test_a_loss_computed_again_in_pieces_is_the_same(model, monkeypatch, images):
    model.decode_head.dropout.p = model.auxiliary_head.dropout.p = 0.0
    inputs, kept = batch(3), []
    for logits in (10**9, int(images * model.num_classes * 64 * 64)):
        monkeypatch.setattr(convmae_seg.segmentor, "LOSS_LOGITS", logits)
        losses = model(inputs)
        grads = torch.autograd.grad(sum(losses.values()), model.parameters())
        kept.append((losses, dict(zip((name for name, _ in model.named_parameters()), grads, strict=True))))
    for whole, pieces in zip(*kept, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-6)


def test_every_parameter_learns(model):
    sum(model(batch()).values()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


def test_nothing_to_learn_is_no_loss(model):
    inputs = [x | {"sem_seg": torch.full((64, 64), IGNORE)} for x in batch()]
    losses = model(inputs)
    assert all(loss.item() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all((p.grad == 0).all() for p in model.parameters())


def test_images_of_another_size_are_padded_with_nothing_to_learn(model):
    model.decode_head.dropout.p = model.auxiliary_head.dropout.p = 0.0
    one, two = batch()
    small = {"image": two["image"][:, :48, :40], "sem_seg": two["sem_seg"][:48, :40]}
    padded = two | {"sem_seg": F.pad(small["sem_seg"], (0, 24, 0, 16), value=IGNORE)}
    mean = model.pixel_mean.expand(3, 64, 64).clone()
    mean[:, :48, :40] = small["image"]
    for name, loss in model([one, small]).items():
        torch.testing.assert_close(loss, model([one, padded | {"image": mean}])[name], rtol=1e-5, atol=1e-6)


def test_one_image_is_not_enough_to_train(model):
    with pytest.raises(UserError, match="two images or more"):
        model(batch(1))


@pytest.mark.parametrize("name", ["decode_head", "auxiliary_head"])
def test_dropout_takes_whole_channels_from_the_classifier_in_training_only(model, name):
    head, seen = getattr(model, name), []
    assert head.dropout.p == 0.1
    head.dropout.p = 0.5
    head.conv_seg.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    features = model.backbone(torch.randn(4, 3, 64, 64))
    head(features)
    head.dropout.p = 0.0
    head(features)
    left = (seen[0] != 0).flatten(2).any(2)
    assert 0.2 < left.float().mean() < 0.8
    torch.testing.assert_close(seen[0], seen[1] * 2 * left[..., None, None])
    head.dropout.p = 0.5
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype):
    model = build_segmentor()
    model.decode_head.dropout.p = model.auxiliary_head.dropout.p = 0.0
    inputs = batch()
    expected = model(inputs)
    with torch.autocast("cpu", dtype=dtype):
        losses = model(inputs)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name], rtol=0.02, atol=0)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    model.return_logits = True
    expected = model(inputs)
    with torch.autocast("cpu", dtype=dtype):
        output = model(inputs)
    for one, precise in zip(output, expected, strict=True):
        assert one["sem_seg"].dtype == torch.float32
        torch.testing.assert_close(one["sem_seg"], precise["sem_seg"], rtol=0, atol=0.1 * precise["sem_seg"].std())


SEEN, ORIGINAL = (70, 100), (83, 121)


@pytest.mark.parametrize("max_logits", [2**24, 3000])
def test_class_maps_equal_those_of_the_plain_loop(model, max_logits):
    model.eval()
    model.inference, model.return_logits = SlidingWindow(64, 43, 4, max_logits), True
    image = torch.randint(0, 256, (3, *SEEN), dtype=torch.uint8)
    output = model([{"image": image, "height": ORIGINAL[0], "width": ORIGINAL[1]}])[0]
    with torch.no_grad():
        expected = slide(model.logits, model.normalise(image)[None], ORIGINAL, 64, 43)[0]
    torch.testing.assert_close(output["sem_seg"], expected, rtol=1e-4, atol=1e-4)
    assert output["classes"].dtype == torch.int64 and output["classes"].shape == ORIGINAL
    top = expected.topk(2, dim=0).values
    decided = top[0] - top[1] > 1e-3
    assert decided.float().mean() > 0.9 and len(expected.argmax(0).unique()) > 2
    assert torch.equal(output["classes"][decided], expected.argmax(0)[decided])


def test_logits_stay_away_unless_asked_for(model):
    model.eval()
    output = model([{"image": torch.zeros(3, 30, 200)}])[0]
    assert output.keys() == {"classes"} and output["classes"].shape == (30, 200)


@pytest.mark.parametrize(("flip", "max_logits"), [(True, 3000), (False, 10**8)])
def test_tta_is_the_mean_of_probabilities(model, flip, max_logits):
    model.eval()
    model.inference, model.return_logits = SlidingWindow(64, 43, 4, max_logits), True
    sample = {"image": torch.randint(0, 256, (3, *SEEN), dtype=torch.uint8), "height": 83, "width": 121}
    scales = [0.75, 1.0, 1.5]
    output = model.with_tta(scales, flip)([sample])[0]
    expected = []
    for view in ScaleAndFlip(scales, flip=False)(sample):
        image = model.normalise(view["image"])[None]
        for mirrored in (False, True)[: 1 + flip]:
            with torch.no_grad():
                logits = slide(model.logits, image.flip(3) if mirrored else image, ORIGINAL, 64, 43)[0]
            expected.append((logits.flip(2) if mirrored else logits).softmax(0))
    assert len(expected) == 3 * (1 + flip)
    torch.testing.assert_close(output["sem_seg"], torch.stack(expected).mean(0), rtol=1e-4, atol=1e-4)
    assert torch.equal(output["classes"], output["sem_seg"].argmax(0))


def test_tta_of_one_scale_changes_nothing(model):
    model.eval()
    sample = {"image": torch.randint(0, 256, (3, *SEEN), dtype=torch.uint8)}
    assert torch.equal(model.with_tta([1.0], False)([sample])[0]["classes"], model([sample])[0]["classes"])


def test_tta_by_the_config(model):
    tta = {"enabled": True, "scales": [0.5, 1.0], "flip": True}
    cfg = OmegaConf.create({"test": {"tta": tta}})
    built = with_tta(cfg, model.eval())
    assert isinstance(built, SegmentorTTA) and built.model is model and not built.training
    assert built.num_classes == model.num_classes  # what writes predictions asks for it
    assert built.scale.scales == [0.5, 1.0] and built.flip
    cfg.test.tta.scales = []
    with pytest.raises(UserError, match=r"test\.tta\.scales=\[\] must be"):
        with_tta(cfg, model)
    cfg.test.tta.enabled = False
    assert with_tta(cfg, model) is model


@pytest.mark.parametrize("window_size", [72, 32])
def test_windows_that_the_backbone_does_not_take(window_size):
    with pytest.raises(ValueError, match=f"Windows of {window_size} pixels are not a multiple .* 16, or below 48"):
        build_segmentor(inference=SlidingWindow(window_size))


def test_a_model_from_the_config_trains_and_segments():
    from detectron2.config import LazyConfig
    from parity import REPO

    cfg = LazyConfig.load(str(REPO / "projects/ConvMAESeg/configs/common/models/upernet_convmae.py"))
    cfg.data = {"image_size": 64}
    cfg.model.backbone.update(embed_dim=(8, 16, 24), depth=(1, 1, 2), num_heads=4)
    cfg.model.decode_head.channels = cfg.model.auxiliary_head.channels = 8
    cfg.model.num_classes = 5
    model = instantiate(cfg.model)
    assert model.inference == SlidingWindow(64)
    losses = model(batch())
    assert losses.keys() == {"loss_decode", "loss_aux"}
    output = model.eval()(batch())
    assert [o["classes"].shape for o in output] == [(64, 64)] * 2
