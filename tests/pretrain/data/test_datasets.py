"""Reading images, and randomness that does not depend on who reads them."""

import pickle
import random
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.seeding import seeded_everywhere, seeded_torch
from pretrain.data.augmentation import finetune_transform, posterize_some
from pretrain.data.datasets import CorruptImages, ImageDataset
from pretrain.data.labels import LabelledImages, open_labelled, take_fraction
from pretrain.data.readers import open_reader
from pretrain.data.samplers import StatelessSampler, train_loader
from pretrain.data.transforms import eval_transform, evaluation_pixels, train_transform


@pytest.fixture
def folder(tmp_path):
    """Twelve flat, unlabelled pictures."""
    generator = torch.Generator().manual_seed(0)
    for i in range(12):
        pixels = torch.randint(0, 255, (40, 50, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{i:02d}.png")
    return tmp_path


def dataset(path, seed=0, mode="RGB"):
    return ImageDataset(open_reader(str(path)), train_transform((32, 32)), 4, seed, mode)


def test_randomness_is_a_function_of_seed_epoch_and_index(folder):
    data = dataset(folder)
    first = data[0, 3]
    before = torch.get_rng_state()
    torch.rand(5)
    for a, b in zip(first, data[0, 3], strict=True):
        assert torch.equal(a, b)
    torch.set_rng_state(before)
    data[1, 3]
    assert torch.equal(before, torch.get_rng_state())
    for other in (data[1, 3], data[0, 4], dataset(folder, seed=1)[0, 3]):
        assert not torch.equal(first.noise, other.noise)
        assert not torch.equal(first.image, other.image)


def test_the_numbers_of_a_seed_stay():
    """They are part of the recipe: a run goes on with the same crops in a later version."""
    with seeded_everywhere(3, 7):
        assert (random.random(), np.random.rand()) == (0.20156503172965556, 0.009427948887780646)
        assert torch.rand(1, dtype=torch.float64).item() == 0.1995566689406636
    with seeded_torch(3, 7):
        assert torch.rand(1, dtype=torch.float64).item() == 0.1995566689406636


@pytest.mark.parametrize("num_workers", [0, 2])
def test_processes_share_the_same_batches(folder, num_workers):
    """The images of a step are the same for one process of batch 4 and for two of batch 2, and after a restart."""
    data = dataset(folder)

    def batches(rank, size, start=0):
        loader = train_loader(data, 4 // size, num_workers, World(rank, rank, size), pin_memory=False)
        loader.sampler.set_position(epoch=2, start=start)
        return [batch.noise for batch in loader]

    def rows(noise):
        return sorted(noise.tolist())

    whole = batches(0, 1)
    assert len(whole) == 3
    for one, a, b in zip(whole, batches(0, 2), batches(1, 2), strict=True):
        assert rows(one) == rows(torch.cat([a, b]))
    for one, resumed in zip(whole[1:], batches(0, 1, start=4), strict=True):
        assert torch.equal(one, resumed)


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_have_equally_many_images(shuffle):
    """Or one would wait for the others' gradients; what is left over waits for another epoch."""
    samplers = [StatelessSampler(11, World(rank, rank, 4), seed=0, shuffle=shuffle) for rank in range(4)]
    shares = [[index for _, index in sampler] for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers] == [2] * 4
    assert len(set().union(*shares)) == 8
    samplers[1].set_position(0, 1)
    assert [index for _, index in samplers[1]] == shares[1][1:] and len(samplers[1]) == 1


def test_sampler_shuffles_each_epoch_anew():
    sampler = StatelessSampler(10, World(), seed=0)
    orders = []
    for epoch in (0, 1):
        sampler.set_position(epoch)
        orders.append([index for _, index in sampler])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]


def test_class_folders_splits_and_tars_are_read(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split, name in (("train", "cat/a.png"), ("train", "dog/b.png"), ("val", "cat/c.png")):
        (root / split / name).parent.mkdir(parents=True, exist_ok=True)
        (root / split / name).write_bytes((folder / "00.png").read_bytes())
    assert len(open_reader(str(root))) == 2
    assert len(open_reader(str(root), "val")) == 1

    shards = tmp_path_factory.mktemp("shards")
    for shard in range(2):
        with tarfile.open(shards / f"{shard:06d}.tar", "w") as tar:
            for i in range(3):
                tar.add(folder / f"{i:02d}.png", arcname=f"{shard}{i}.png")
                tar.add(folder / f"{i:02d}.png", arcname=f"{shard}{i}.cls")  # webdataset's label beside it
    data = dataset(shards)
    assert len(data) == 6
    assert data[0, 5].image.shape == (3, 32, 32)
    assert len(open_reader(str(shards / "000000.tar"))) == 3
    assert sorted(p.name for p in shards.iterdir()) == ["000000.tar", "000001.tar"]


def test_tar_read_before_workers_start(folder):
    path = folder / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for copy in range(20):
            for i in range(12):
                tar.add(folder / f"{i:02d}.png", arcname=f"{copy:02d}{i:02d}.png")
    data = dataset(path)
    data[0, 0]
    alone, shared = (list(train_loader(data, 4, workers, World(), pin_memory=False)) for workers in (0, 2))
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a.image, b.image) and (b.unreadable < 0).all()


@pytest.mark.parametrize(
    ("kind", "transform"),
    [
        (ImageDataset, train_transform((32, 32))),
        (ImageDataset, eval_transform((32, 32))),
        (LabelledImages, evaluation_pixels((32, 32))),
        *((LabelledImages, finetune_transform((32, 32), 3, p)) for p in ("rand-m9-mstd0.5-inc1", "augmix", "3a", "v0")),
    ],
)
def test_workers_need_not_be_forked(folder, kind, transform):
    """Where they are spawned they get a pickled copy of the data set."""
    extra = {"noise_size": 4} if kind is ImageDataset else {}
    data = kind(take_fraction(open_reader(str(folder)), 1.0, 0), transform, seed=0, mode="RGB", **extra)
    for ours, expected in zip(pickle.loads(pickle.dumps(data))[1, 3], data[1, 3], strict=True):
        assert torch.equal(ours, expected)


def test_corrupt_images_are_replaced_counted_and_named(folder):
    (folder / "04.png").write_text("not an image")
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:200])
    data = dataset(folder)
    sample = data[0, 4]
    unreadable = sample.unreadable[sample.unreadable >= 0].tolist()
    assert unreadable == [4, 5]
    assert sample.image.dtype == torch.uint8
    corrupt = CorruptImages(data, max_share=0.2)
    assert [name.rsplit("/", 1)[1] for name in corrupt.add(unreadable)] == ["04.png", "05.png"]
    assert corrupt.add(unreadable) == []
    with pytest.raises(ValueError, match=r"3 of 12 images cannot be read, .* for example .*07\.png"):
        corrupt.add({5, 7})  # another process's
    with pytest.raises(ValueError, match=r"2 of 12 images cannot be read, more than --max_corrupt 0\.1.*05\.png"):
        CorruptImages(data, max_share=0.1).add(unreadable)


def test_text_file_named_jpg(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"None of 1 image\(s\) from .*a\.jpg on can be read"):
        dataset(tmp_path)[0, 0]


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".JPEG", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
def test_images_of_every_suffix(tmp_path, suffix):
    image = Image.linear_gradient("L").resize((40, 40))
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for split in ("train", "val"):
            file = tmp_path / "folders" / split / "cat" / f"a{suffix}"
            file.parent.mkdir(parents=True)
            image.save(file)
            tar.add(file, arcname=f"{split}/a{suffix}")
    assert [len(open_labelled(str(tmp_path / "folders"), split)) for split in ("train", "val")] == [1, 1]
    for path in (tmp_path / "folders", tmp_path / "all.tar"):
        assert dataset(path)[0, 0].image.float().std() > 20
    assert len(open_reader(str(tmp_path / "all.tar"))) == 2


def test_a_tar_file_among_images(folder, caplog):
    with tarfile.open(folder / "backup.tar", "w") as tar:
        tar.add(folder / "00.png", arcname="00.png")
    assert len(open_reader(str(folder))) == 12
    assert "holds images, which are read, and 1 .tar files, which are not (backup.tar, …)" in caplog.text
    assert len(open_reader(str(folder / "backup.tar"))) == 1


def test_grey_images(folder):
    assert dataset(folder, mode="L")[0, 0].image.shape == (1, 32, 32)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_images_of_sixteen_bits_are_what_those_of_eight_are(tmp_path, mode):
    images = []
    for scale in (1, 257):
        pixels = np.arange(40 * 50).reshape(40, 50) % 256 * scale
        Image.fromarray(pixels.astype(np.uint8 if scale == 1 else np.uint16)).save(tmp_path / "a.png")
        images.append(dataset(tmp_path, mode=mode)[0, 0].image)
    assert torch.equal(*images) and images[0].float().std() > 20


@pytest.mark.parametrize("size", [(32, 32), (32, 64), (64, 32)])
def test_evaluation_crop_keeps_proportions(size):
    image = Image.new("RGB", (100, 60))
    image.paste((255, 0, 0), (40, 20, 60, 40))
    out = eval_transform(size)(image)
    assert out.shape == (3, *size)
    assert out[0, size[0] // 2, size[1] // 2] > 200  # the centre stays the centre


def test_missing_and_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no data at nowhere"):
        open_reader("nowhere")
    with pytest.raises(ValueError, match="There are no images in"):
        open_reader(str(tmp_path))
    (tmp_path / "text.tar").write_text("hello")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for name, problem in (("text", "is no tar file, or it is damaged"), ("empty", "")):
        with pytest.raises(UserError, match=rf"{name}\.tar {problem}" if problem else rf"no images in .*{name}\.tar"):
            open_reader(str(tmp_path / f"{name}.tar"))
    with pytest.raises(ValueError, match="which the stream wds/ does not allow"):
        open_reader("wds/shards")


def test_too_few_images_for_a_step(folder):
    with pytest.raises(ValueError, match="12 images give no optimizer step: one needs at least 16"):
        train_loader(dataset(folder), 8, 0, World(0, 0, 2), pin_memory=False)


def test_a_failing_transform_is_no_unreadable_image(folder):
    def fails(image):
        raise RuntimeError("bug in the transform")

    with pytest.raises(RuntimeError, match="bug in the transform"):
        ImageDataset(open_reader(str(folder)), fails, 4, 0, "RGB")[0, 0]


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "v0", "augmix-m5-w4-mstd1", "3a", "none"])
def test_every_strength_of_a_policy_is_defined(folder, policy):
    """Posterize down to no bit at all is refused by new versions of Pillow."""
    transform = finetune_transform((32, 32), 3, policy)
    image = Image.open(folder / "00.png").convert("RGB")
    for seed in range(1000 if policy.startswith("rand") else 50):
        with seeded_everywhere(seed):
            assert transform(image).shape == (3, 32, 32)


def test_posterize_keeps_a_bit():
    image = Image.linear_gradient("L")
    assert len(posterize_some(image, 0).getcolors()) == len(posterize_some(image, 1).getcolors()) == 2
    assert len(posterize_some(image, 4).getcolors()) == 16


def test_unknown_policy():
    with pytest.raises(ValueError, match="--aa bogus is not an augmentation policy"):
        finetune_transform((32, 32), 3, "bogus")


def test_a_share_of_labels_has_some_of_each_class_in_the_order_of_the_data():
    reader = SimpleNamespace(labels=np.repeat([2, 0, 1], [1, 10, 3]))
    one, again, other = (take_fraction(reader, 0.2, seed).indices for seed in (0, 0, 1))
    assert isinstance(one, np.ndarray)  # which the workers of a loader share
    assert one.tolist() == sorted(one) == again.tolist() != other.tolist()
    assert np.bincount(reader.labels[one]).tolist() == [2, 1, 1]
