"""Decoding and resizing by torchvision give what Pillow gives; batches are normalised as single images were."""

import argparse
import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2

from pretrain.common.devices import default_amp
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.seeding import seeded_everywhere
from pretrain.data import augmentation, pixels
from pretrain.data import transforms as ours
from pretrain.data.augmentation import finetune_transform
from pretrain.data.datasets import ImageDataset, MaskedSample
from pretrain.data.pixels import as_pil, as_tensor, decode, images_on, normalisation, normalise, resize
from pretrain.data.readers import open_reader
from pretrain.data.samplers import collate
from pretrain.data.transforms import eval_transform, evaluation_pixels, evaluation_transform, train_transform
from pretrain.training import run
from pretrain.training.args import parse_args

CPU = torch.device("cpu")


def picture(size=(120, 90)) -> Image.Image:
    """Smooth, with colours of all strengths."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    with io.BytesIO() as file:
        image.save(file, file_format, **options)
        return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def transparent() -> Image.Image:
    image = picture()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


FRAMES = dict(save_all=True, append_images=[picture().rotate(90)])
FILES = {
    "jpeg": lambda: encoded(picture(), "JPEG"),
    "jpeg, full chroma": lambda: encoded(picture(), "JPEG", quality=95, subsampling=0),
    "jpeg, progressive": lambda: encoded(picture(), "JPEG", progressive=True),
    "jpeg, grey": lambda: encoded(picture().convert("L"), "JPEG"),
    "jpeg, CMYK": lambda: encoded(picture().convert("CMYK"), "JPEG"),
    "jpeg, turned by EXIF": lambda: encoded(picture(), "JPEG", exif=turned()),
    "jpeg, several pictures": lambda: encoded(picture(), "MPO", **FRAMES),
    "png": lambda: encoded(picture(), "PNG"),
    "png, grey": lambda: encoded(picture().convert("L"), "PNG"),
    "png, transparent": lambda: encoded(transparent(), "PNG"),
    "png, grey and transparent": lambda: encoded(transparent().convert("LA"), "PNG"),
    "png, palette": lambda: encoded(picture().convert("P"), "PNG"),
    "png, black and white": lambda: encoded(picture().convert("1"), "PNG"),
    "png, 16 bits": lambda: encoded(Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(50, 80) * 16), "PNG"),
    "png, animated": lambda: encoded(picture(), "PNG", **FRAMES),
    "gif, animated": lambda: encoded(picture(), "GIF", **FRAMES),
    "webp": lambda: encoded(picture(), "WEBP"),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", FILES)
def test_both_decoders_give_the_same_pixels(name, mode):
    content = FILES[name]()
    with Image.open(io.BytesIO(content)) as image:
        size = image.size
    expected = decode(io.BytesIO(content), mode, "pil")
    assert isinstance(expected, Image.Image) and expected.mode == mode and expected.size == size
    found = decode(io.BytesIO(content), mode, "torchvision")
    assert isinstance(found, torch.Tensor) and found.dtype == torch.uint8
    assert torch.equal(found, as_tensor(expected)) and found.float().std() > 20


def test_torchvision_decodes_jpeg(monkeypatch):
    """Else the test above would compare Pillow with itself; and without torchvision's decoders Pillow takes over."""
    content, calls = FILES["jpeg"](), []
    decoded = decode(io.BytesIO(content), "RGB")
    original = pixels.torchvision_io.decode_jpeg
    monkeypatch.setattr(pixels.torchvision_io, "decode_jpeg", lambda *args: calls.append(args) or original(*args))
    for name in FILES:
        decode(io.BytesIO(FILES[name]()), "RGB")
    assert len(calls) == sum(name.startswith("jpeg") for name in FILES) - 1  # CMYK
    monkeypatch.delattr(pixels.torchvision_io, "decode_jpeg")
    assert torch.equal(decode(io.BytesIO(content), "RGB"), decoded)


@pytest.mark.parametrize("name", ["jpeg", "jpeg, progressive", "jpeg, grey", "jpeg, CMYK", "png"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_are_refused(name, share):
    content = FILES[name]()
    content, messages = content[: int(share * len(content))], []
    for decoder in ("pil", "torchvision"):
        with pytest.raises(OSError, match="truncated") as caught:
            decode(io.BytesIO(content), "RGB", decoder)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("decoder", ["pil", "torchvision"])
def test_a_truncated_jpeg_is_replaced_and_counted(tmp_path, decoder):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(FILES["jpeg"]())
    (tmp_path / "1.jpg").write_bytes(FILES["jpeg"]()[:-500])
    data = ImageDataset(open_reader(str(tmp_path)), train_transform((32, 32)), 4, 0, "RGB", decoder)
    assert data[0, 1].unreadable.tolist()[:2] == [1, -1]
    assert data[0, 2].unreadable.max() == -1


def test_damaged_png_files_do_not_end_the_process():
    """On some of these torchvision 0.29 does."""
    content, generator = FILES["png"](), np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(content)
        damaged[generator.integers(100, len(content))] ^= 0xFF
        results = []
        for decoder in ("pil", "torchvision"):
            try:
                results.append(as_tensor(decode(io.BytesIO(damaged), "RGB", decoder)).tolist())
            except (OSError, SyntaxError) as e:
                results.append(str(e))
        assert results[0] == results[1]


@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_batch_is_normalised_as_single_images_were(in_chans):
    images = [picture((40, 30)).convert(ours.image_mode(in_chans)).rotate(angle) for angle in (0, 180)]
    single = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*normalisation(in_chans))])
    expected = torch.stack([single(image) for image in images])
    batch = torch.stack([as_tensor(image) for image in images])
    found = images_on(batch, CPU)
    assert torch.equal(found, expected) and found.is_contiguous()
    assert images_on(expected, CPU) is expected  # is normalised already


@pytest.mark.parametrize("size", [(90, 50), (200, 120), (40, 120)])
def test_a_pass_of_resizing_is_that_of_pillow_within_one(size):
    image = picture()
    found, expected = resize(as_tensor(image), size), as_tensor(resize(image, size))
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.1
    assert np.array_equal(resize(image, size), image.resize(size[::-1], Image.Resampling.BICUBIC))


def seeded(transform, image, seed):
    with seeded_everywhere(seed):
        return transform(image), torch.rand(3).tolist(), np.random.rand()


@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
@pytest.mark.parametrize("kind", ["train", "eval", "evaluation", "finetune", "erasing", "jitter"])
def test_transforms_are_those_of_torchvision_and_timm(kind, size):
    """PIL images become what they were; tensors nearly that, with the same draws, so that masks are the same too."""
    mean, std = (tuple(values) for values in normalisation(3))
    to_input = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    timm = partial(create_transform, (3, *size), True, interpolation="bicubic", mean=mean, std=std, scale=(0.08, 1.0))
    crop = transforms.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=InterpolationMode.BICUBIC)
    fit = [ours.LargestCentre(size), transforms.Resize(size, InterpolationMode.BICUBIC)]
    policy = "rand-m9-mstd0.5-inc1"
    transform, expected = {
        "train": (train_transform(size), transforms.Compose([crop, transforms.RandomHorizontalFlip(), *to_input])),
        "eval": (eval_transform(size), transforms.Compose([*fit, *to_input])),
        "evaluation": (evaluation_pixels(size), evaluation_transform(size, 3)),
        "finetune": (finetune_transform(size, 3, policy, erasing=0.0), timm(auto_augment=policy, color_jitter=None)),
        "erasing": (
            finetune_transform(size, 3, "none", erasing=0.9),
            timm(color_jitter=None, re_prob=0.9, re_mode="pixel"),
        ),
        "jitter": (finetune_transform(size, 3, "none", color_jitter=0.3, erasing=0.0), timm(color_jitter=0.3)),
    }[kind]
    image = picture()
    for seed in range(5):
        result, *draws = seeded(transform, image, seed)
        then, *draws_then = seeded(expected, image, seed)
        assert torch.equal(images_on(result, CPU), then) and draws == draws_then
        tensor, *draws = seeded(transform, as_tensor(image), seed)
        assert tensor.dtype == result.dtype and draws == draws_then
        difference = (images_on(tensor, CPU) - then).abs() * 0.225 * 255
        assert difference.mean() < (2 if kind in ("finetune", "jitter") else 0.2)  # colours may strengthen a difference


@pytest.mark.parametrize(
    ("module", "transform"),
    [(ours, train_transform((32, 32))), (augmentation, finetune_transform((32, 32), 3, "none"))],
)
def test_crop_boxes_are_the_same(monkeypatch, module, transform):
    boxes = []
    monkeypatch.setattr(module, "crop_and_resize", lambda image, box, size: boxes.append((box, size)) or image)
    for size in ((120, 90), (40, 300), (33, 32)):
        for seed in range(5):
            for image in (picture(size), as_tensor(picture(size))):
                seeded(transform, image, seed)
    assert boxes[::2] == boxes[1::2] and len(set(boxes)) > 10


@pytest.mark.parametrize("width_and_height", [(120, 90), (32, 24), (300, 12), (10, 200), (33, 32)])
def test_training_pixels_are_torchvisions(width_and_height):
    """Bit for bit, with the same draws: of photos, of ones that need no resizing, and of ones too long for a crop."""
    crop = v2.RandomResizedCrop((24, 32), (0.2, 1.0), interpolation=InterpolationMode.BICUBIC)
    expected = v2.Compose([crop, v2.RandomHorizontalFlip()])
    image = as_tensor(picture(width_and_height))
    for seed in range(20):
        for pixel_layout in (image, image.contiguous()):
            found, *draws = seeded(train_transform((24, 32)), pixel_layout, seed)
            then, *draws_then = seeded(expected, pixel_layout, seed)
            assert torch.equal(found, then) and draws == draws_then


@pytest.mark.parametrize("shape", [(1, 1), (40, 1), (1, 40)])
@pytest.mark.parametrize("transform", [eval_transform, train_transform])
def test_images_a_pixel_wide_can_be_cropped_to_other_proportions(transform, shape):
    image = torch.full((3, *shape), 7, dtype=torch.uint8)
    for kind in (image, as_pil(image)):
        assert torch.equal(transform((32, 64))(kind), torch.full((3, 32, 64), 7, dtype=torch.uint8))


@pytest.mark.parametrize("chans", [1, 3])
def test_a_batch_is_that_of_its_samples(chans):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, chans, 5, 6), generator=generator, dtype=torch.uint8)
    for dtype in (torch.uint8, torch.float32):
        samples = [MaskedSample(image.to(dtype), torch.rand(3), torch.tensor([i])) for i, image in enumerate(images)]
        batch = collate(samples)
        for field, expected in zip(batch, default_collate(samples), strict=True):
            assert torch.equal(field, expected)
        assert images_on(batch.image, CPU).is_contiguous()


def test_the_decoder_of_a_run(tmp_path):
    """A run goes on with what it began with, which was Pillow before there was a choice."""
    needed = ["--model=convmae_convvit_tiny_patch8", f"--data_path={tmp_path}", f"--output_dir={tmp_path}"]

    def decoder(asked, state):
        args = argparse.Namespace(**vars(parse_args(needed + asked)) | dict(lr=1.0, amp=default_amp(CPU)))
        return run._settled(args, World(), CPU, state).decoder

    assert decoder([], None) == "torchvision"
    assert decoder([], {"args": {}}) == "pil"
    assert decoder([], {"args": {"decoder": "torchvision"}}) == "torchvision"
    assert decoder(["--decoder=pil"], {"args": {"decoder": "torchvision"}}) == "pil"
    assert decoder(["--decoder=torchvision"], {"args": {}}) == "torchvision"


def test_videos_have_no_decoder(tmp_path):
    argv = ["--model=videoconvmae_convvit_tiny_patch16", f"--data_path={tmp_path}", f"--output_dir={tmp_path}"]
    with pytest.raises(UserError, match="--decoder is an option of image models"):
        parse_args([*argv, "--decoder=pil"])


def test_normalise_takes_no_other_channels_along():
    """Each channel has its own mean."""
    found = normalise(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    mean, std = (torch.tensor(values) for values in normalisation(3))
    assert torch.allclose(found[1, :, 2, 3], -mean / std)
