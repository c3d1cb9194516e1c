"""MIMDet's and the Benchmarking ViT's backbones beyond the golden files: sizes, sampling, padding, arguments."""

import pytest
import torch
from detectron2.structures import ImageList

from mimdet import BenchmarkingViT, MIMDetBackbone

MIMDET = dict(
    img_size=64, embed_dim=32, depth=2, num_heads=4, decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=4
)
BENCHMARKING = dict(img_size=64, embed_dim=32, depth=8, num_heads=4, window_size=2)


def gradients(model: torch.nn.Module, *inputs) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    sum(out.square().sum() for out in model(*inputs).values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("make", [lambda: MIMDetBackbone(**MIMDET), lambda: BenchmarkingViT(**BENCHMARKING)])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (32, 64)])
def test_any_size(make, height, width):
    model = make()
    images = torch.randn(2, 3, height, width)
    outputs = model(images)
    for i, (name, spec) in enumerate(model.output_shape().items()):
        assert spec.stride == 4 * 2**i
        assert outputs[name].shape == (2, spec.channels, height // spec.stride, width // spec.stride)
    for name, gradient in gradients(model, images).items():
        assert gradient is not None and gradient.isfinite().all(), name
    with pytest.raises(ValueError, match="Image size 48x64 is not divisible by 32"):
        model(torch.randn(1, 3, 48, 64))


@pytest.mark.parametrize(("cls", "config"), [(MIMDetBackbone, MIMDET), (BenchmarkingViT, BENCHMARKING)])
def test_activation_checkpointing_changes_nothing(cls, config):
    plain, checkpointed = (cls(**config, use_act_checkpoint=value) for value in (False, True))
    checkpointed.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    expected, actual = gradients(plain, images), gradients(checkpointed, images)
    for name in expected:
        assert torch.equal(expected[name], actual[name]), name


@pytest.mark.parametrize(("sample_ratio", "tokens"), [(0.25, 6), (0.5, 12), (0.3, 7), (1.0, 24)])
def test_the_encoder_computes_sampled_tokens_only(sample_ratio, tokens):
    model = MIMDetBackbone(**MIMDET, sample_ratio=sample_ratio)
    seen = []
    model.encoder.blocks[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    model(torch.randn(2, 3, 64, 96))
    assert seen == [tokens]


def test_padding_is_sampled_last():
    model = MIMDetBackbone(**MIMDET, sample_ratio=0.5)
    images = ImageList(torch.zeros(2, 3, 64, 96), [(64, 96), (33, 60)])
    for _ in range(5):
        patches = model._sample(images, (4, 6), None)
        rows, columns = patches.ids_keep[1] // 6, patches.ids_keep[1] % 6
        assert (rows < 3).all() and (columns < 4).all()
        assert len(set(patches.ids_keep[1].tolist())) == 12


def test_another_sample_ratio_takes_the_same_weights():
    trained = MIMDetBackbone(**MIMDET, sample_ratio=0.5)
    whole = MIMDetBackbone(**MIMDET, sample_ratio=1.0)
    whole.load_state_dict(trained.state_dict())
    images = torch.randn(1, 3, 64, 64)
    trained.sample_ratio = 1.0
    # Nothing is left to chance when every token is seen.
    torch.testing.assert_close(trained(images)["c4"], whole(images)["c4"], atol=1e-5, rtol=1e-5)


def test_evaluation_can_be_repeated():
    model = MIMDetBackbone(**MIMDET, sample_ratio=0.5)
    images = torch.randn(1, 3, 64, 64)
    assert not torch.equal(model(images)["c4"], model(images)["c4"])
    model.eval()
    assert torch.equal(model(images)["c4"], model(images)["c4"])


@pytest.mark.parametrize("sample_ratio", [0.5, 1.0])
def test_an_image_is_the_same_alone_and_in_a_batch_of_its_size(sample_ratio):
    model = MIMDetBackbone(**MIMDET, sample_ratio=sample_ratio).eval()
    images = torch.randn(3, 3, 64, 96)
    batch, alone = model(images), model(images[1:2])
    for name in batch:
        torch.testing.assert_close(batch[name][1:2], alone[name], atol=1e-5, rtol=1e-5)


def test_padding_changes_the_features_at_every_sample_ratio():
    """As the published model: the stem's norms and attention take the padding in."""
    model = MIMDetBackbone(**MIMDET, sample_ratio=1.0).eval()
    image = torch.randn(1, 3, 64, 64)
    padded = torch.nn.functional.pad(image, (0, 32))
    alone, in_batch = model(image), model(ImageList(padded, [(64, 64)]))
    for name, features in alone.items():
        cut = in_batch[name][..., : features.shape[-1]]
        assert (cut - features).abs().max() > 1e-2 * features.abs().max(), name


def test_benchmarking_vit_does_not_see_the_other_images_of_a_batch():
    model = BenchmarkingViT(**BENCHMARKING)
    images = torch.randn(3, 3, 64, 64)
    batch, alone = model(images), model(images[1:2])
    for name in batch:
        torch.testing.assert_close(batch[name][1:2], alone[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MIMDetBackbone(**MIMDET | dict(img_size=100)), "img_size 100 is not a multiple"),
        (lambda: MIMDetBackbone(**MIMDET, sample_ratio=0), r"sample_ratio must be above 0 and at most 1, got 0"),
        (lambda: MIMDetBackbone(**MIMDET, sample_ratio=1.5), "got 1.5"),
        (lambda: BenchmarkingViT(**BENCHMARKING | dict(depth=6)), "depth 6 cannot be cut into 4 groups"),
        (lambda: BenchmarkingViT(**BENCHMARKING | dict(img_size=100)), "img_size 100 is not a multiple"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_too_small_a_sample_ratio():
    with pytest.raises(ValueError, match=r"sample_ratio 0\.1 leaves none of 4 tokens"):
        MIMDetBackbone(**MIMDET, sample_ratio=0.1)(torch.randn(1, 3, 32, 32))
