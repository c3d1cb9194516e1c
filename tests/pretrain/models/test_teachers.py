"""Teachers: what they make of a student's images, and how the average follows the student."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pretrain.common.files import save_atomically
from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.classifier import ConvViT
from pretrain.models.convmae_v2 import MaskedAutoencoderConvViTv2
from pretrain.models.teachers import EmaTeacher, convvit_teacher, ema_decay, timm_teacher

IMAGENET = (list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))
GREY = ([0.45], [0.22])
TINY = dict(
    img_size=32,
    embed_dim=(8, 16, 24),
    depth=(1, 1, 1),
    num_heads=2,
    decoder_embed_dim=8,
    decoder_depth=1,
    decoder_num_heads=2,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of timm's smallest ViT in a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "vit.pth"
    save_atomically(timm.create_model("test_vit").state_dict(), path)
    return str(path)


@pytest.mark.parametrize(("students", "size"), [(IMAGENET, (160, 160)), (GREY, (32, 48))])
def test_timm_models_see_images_as_they_were_trained(weights, students, size):
    """test_vit's own mean and standard deviation are 0.5, and its images have 160 pixels."""
    teacher = timm_teacher("test_vit", weights, students, "")
    grid = (size[0] // 16, size[1] // 16)
    pixels = torch.rand(2, len(students[0]), *size)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in students)
    features = teacher((pixels - mean) / std, grid)

    network = timm.create_model("test_vit").eval()
    network.load_state_dict(torch.load(weights))
    resized = F.interpolate(pixels.expand(-1, 3, -1, -1), (160, 160), mode="bicubic", antialias=True)
    tokens = network.forward_features((resized if size != (160, 160) else pixels) * 2 - 1)[:, 1:]
    expected = F.interpolate(
        tokens.transpose(1, 2).unflatten(2, (10, 10)), grid, mode="bilinear", antialias=grid != (10, 10)
    )
    assert features.shape == (2, grid[0] * grid[1], teacher.dim) and teacher.dim == 64
    torch.testing.assert_close(features, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_teachers_are_not_trained(weights):
    teacher = timm_teacher("test_vit", weights, IMAGENET, "").train()
    assert not any(module.training for module in teacher.modules())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = teacher(torch.randn(1, 3, 32, 32, requires_grad=True), (2, 2))
    assert features.dtype == torch.float32 and not features.requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())


def offline(*_, **__):
    raise ConnectionError("Name or service not known")


def test_teachers_that_cannot_be_had(weights, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="timm has no model 'vit_none'"):
        timm_teacher("vit_none", "", IMAGENET, "")
    with pytest.raises(ValueError, match=r"timm has no model 'test_vit\.none'"):
        timm_teacher("test_vit.none", "", IMAGENET, "")
    with pytest.raises(ValueError, match=r"vit\.pth does not hold the weights of timm's test_vit2; name the model"):
        timm_teacher("test_vit2", weights, IMAGENET, "--targets v=test_vit2@FILE")
    with pytest.raises(FileNotFoundError, match=r"missing\.pth does not exist"):
        timm_teacher("test_vit", str(tmp_path / "missing.pth"), IMAGENET, "")
    monkeypatch.setattr(timm, "create_model", offline)
    name = "vit_base_patch16_224.dino"
    with pytest.raises(ValueError, match="are not here and cannot be downloaded") as e:
        timm_teacher(name, "", IMAGENET, f"--targets dino={name}@FILE")
    source = f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors"
    assert f"get {source} and name the file: --targets dino={name}@FILE." in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("version", [MaskedAutoencoderConvViT, MaskedAutoencoderConvViTv2])
def test_the_average_begins_as_the_student_and_follows_it(version):
    student = version(**TINY)
    teacher = EmaTeacher(student, IMAGENET)
    assert not any(n.startswith(("decoder", "mask_token")) for n in teacher.network.state_dict())
    imgs = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher(imgs, (2, 2)), student.forward_features(imgs)[:, student.num_prefix_tokens :])

    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    new = student.state_dict()
    teacher.update(student, 1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.network.state_dict().items())
    teacher.update(student, 0.9)
    for name, tensor in teacher.network.state_dict().items():
        torch.testing.assert_close(tensor, 0.9 * before[name] + 0.1 * new[name])
    teacher.update(student, 0.0)
    assert all(torch.equal(tensor, new[name]) for name, tensor in teacher.network.state_dict().items())


def test_decay_over_a_run():
    assert [ema_decay(p, 0.996, 1.0) for p in (0, 0.5, 1)] == pytest.approx([0.996, 0.998, 1.0])
    assert [ema_decay(p, 0.0, 0.0) for p in (0.1, 0.7)] == [0.0, 0.0]


def test_a_classifier_as_teacher():
    sizes = {name: value for name, value in TINY.items() if not name.startswith("decoder_")}
    classifier = ConvViT(num_classes=0, **sizes)
    teacher = convvit_teacher(classifier, IMAGENET)
    imgs = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher(imgs, (2, 2)), classifier.fc_norm(classifier.forward_features(imgs)))
