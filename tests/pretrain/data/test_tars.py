"""Tar files give what the unpacked folder would, in the order that is asked for; damaged ones are told of."""

import io
import json
import logging
import pickle
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.data import tar_index
from pretrain.data.datasets import CorruptImages, ImageDataset
from pretrain.data.labels import LabelledImages, class_names, open_labelled, take_fraction
from pretrain.data.readers import open_reader
from pretrain.data.reading_order import shuffled_by_shards
from pretrain.data.samplers import StatelessSampler, train_loader
from pretrain.data.transforms import evaluation_pixels, train_transform

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """Content by name, not in the order of the names."""
    generator, files = np.random.default_rng(0), {}
    for i in range(12):
        kind, suffix = ("JPEG", "jpg") if i % 3 else ("PNG", "png")
        with io.BytesIO() as file:
            Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(file, kind)
            files[f"{i * 7 % 12}.{suffix}"] = file.getvalue()
    return files


def class_of(name: str) -> str:
    return CLASSES[int(name.partition(".")[0]) % 3]


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, content in files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of(files.items()))
    return path


def with_labels(name: str, content: bytes, kind: str) -> dict[str, bytes]:
    """A sample of WebDataset's."""
    key, label = name.partition(".")[0], class_of(name)
    text = label + "\n" if kind == "cls" else json.dumps({"label": label, "url": "…"})
    return {f"{key}.{kind}": text.encode(), name: content}


def shards(folder: Path, files: dict[str, bytes], size: int = 4, kind: str | None = "cls") -> Path:
    """Writes tar files of so many images each."""
    names = list(files)
    for i in range(0, len(names), size):
        samples = {name: files[name] for name in names[i : i + size]}
        if kind:
            samples = {k: v for name, content in samples.items() for k, v in with_labels(name, content, kind).items()}
        write_tar(folder / f"part-{i // size:06d}.tar", samples)
    return folder


def pack(layout: str, folder: Path, files: dict[str, bytes]) -> None:
    of_classes = {f"{c}.tar": tar_of((n, files[n]) for n in files if class_of(n) == c) for c in CLASSES}
    if layout in ("cls", "json"):
        shards(folder, files, kind=layout)
    elif layout == "folders":
        write_tar(folder / "images.tar", {f"./{class_of(name)}/{name}": files[name] for name in files})
    elif layout == "tar of each class":
        folder.mkdir(parents=True)
        for name, content in of_classes.items():
            (folder / name).write_bytes(content)
    else:
        write_tar(folder / "all.tar", {"readme.txt": b"as ImageNet comes", **of_classes})


@pytest.mark.parametrize("layout", ["cls", "json", "folders", "tar of each class", "tar of tars"])
def test_samples_are_those_of_the_folder(layout, pictures, tmp_path):
    """With the same indices, so that crops and masks are the same as well."""
    for name, content in pictures.items():
        for path in (tmp_path / "flat" / name, tmp_path / "classes" / "train" / class_of(name) / name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    pack(layout, tmp_path / "tars" / "train", pictures)
    flat, classes = open_reader(str(tmp_path / "flat")), open_labelled(str(tmp_path / "classes"), "train")
    reader = open_labelled(str(tmp_path / "tars"), "train")
    assert len(reader) == 12 and class_names(reader) == class_names(classes) == list(CLASSES)
    unpacked = classes if layout in ("folders", "tar of tars") else flat
    pretraining = [ImageDataset(r, train_transform((16, 16)), 4, 0, "RGB") for r in (reader, unpacked)]
    for i in range(12):
        for found, expected in zip(pretraining[0][1, i], pretraining[1][1, i], strict=True):
            assert torch.equal(found, expected)
    found, expected = (LabelledImages(r, evaluation_pixels((16, 16)), 0, "RGB") for r in (reader, classes))
    by_name = {classes.filename(i, basename=True): i for i in range(12)}
    for i in range(12):
        sample, then = found[0, i], expected[0, by_name[reader.filename(i, basename=True)]]
        assert torch.equal(sample.image, then.image) and sample.label == then.label
    assert len(take_fraction(reader, 0.5, 0)) == 6


def test_readers_and_workers(pictures, tmp_path):
    """A worker gets a copy, forked or pickled, of a reader in use; no file is open that they could share."""
    reader = open_reader(str(shards(tmp_path, pictures)))
    data = ImageDataset(reader, train_transform((16, 16)), 4, 0, "RGB")
    data[0, 0]
    assert torch.equal(pickle.loads(pickle.dumps(data))[0, 5].image, data[0, 5].image)
    alone, shared = (list(train_loader(data, 4, n, World(), False, shard_window=2)) for n in (0, 2))
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.noise, b.noise)


@pytest.mark.parametrize("sizes", [[5] * 12, [1, 9, 4, 0, 7, 30, 2, 2], [3]])
@pytest.mark.parametrize("window", [1, 4, 100])
def test_order_of_reading(sizes, window):
    of = np.repeat(np.arange(len(sizes)), sizes)
    order, again, other = (shuffled_by_shards(of, window, np.random.default_rng([0, epoch])) for epoch in (3, 3, 4))
    assert np.array_equal(np.sort(order), np.arange(len(of))) and np.array_equal(order, again)
    assert len(of) == 3 or not np.array_equal(order, other)
    for piece in (order[start::window] for start in range(window)):
        runs = 1 + np.count_nonzero(np.diff(of[piece])) if len(piece) else 0
        assert runs == len(np.unique(of[piece]))  # one file after the other, each of them once


def test_window_of_shards():
    """Of files of the same size whole ones are read, four at a time, all their images before the next."""
    of = np.repeat(np.arange(12), 5)
    order = shuffled_by_shards(of, 4, np.random.default_rng(0))
    blocks = order.reshape(3, 20)
    assert [len(np.unique(of[block])) for block in blocks] == [4, 4, 4]
    assert len(np.unique(of[order[:4]])) == 4
    assert not np.array_equal(np.sort(blocks[0][::4]), blocks[0][::4])  # shuffled within a file


def test_processes_share_the_files(pictures, tmp_path):
    """Each reads files of its own, equally many images, in the steps of a single process; also from the middle on."""
    data = ImageDataset(open_reader(str(shards(tmp_path, pictures, size=3))), train_transform((16, 16)), 4, 0, "RGB")

    def order(rank, size, start=0):
        sampler = StatelessSampler(len(data), World(rank, rank, size), 0, shards=data.shards, window=2)
        sampler.set_position(epoch=1, start=start)
        return [index for _, index in sampler]

    whole, first, second = order(0, 1), order(0, 2), order(1, 2)
    assert whole[::2] == first and whole[1::2] == second and sorted(whole) == list(range(12))
    assert not set(data.shards[first]) & set(data.shards[second])
    assert order(1, 2, start=2) == second[2:]
    everything = StatelessSampler(len(data), World(), 0)
    everything.set_position(epoch=1)
    assert [index for _, index in everything] != whole


def test_shares_of_labels_keep_their_files(pictures, tmp_path):
    reader = open_labelled(str(shards(tmp_path / "train", pictures).parent), "train")
    share = take_fraction(reader, 0.5, 0)
    assert [share.filename(i, absolute=True).split("/")[-2] for i in range(len(share))] == [
        reader.paths[shard].name for shard in share.shards
    ]


def test_window_without_tar_files(pictures, tmp_path):
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
    data = ImageDataset(open_reader(str(tmp_path)), train_transform((16, 16)), 4, 0, "RGB")
    with pytest.raises(
        UserError, match="--shard_window 2 is an order of reading tar files, and these images are in none"
    ):
        train_loader(data, 2, 0, World(), False, shard_window=2)


@pytest.mark.parametrize("left", [0.3, 0.8, 0.999])
@pytest.mark.parametrize("kind", [None, "cls"])
def test_truncated_tar_files(left, kind, pictures, tmp_path):
    path = shards(tmp_path, pictures, size=12, kind=kind) / "part-000000.tar"
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + tar.getmembers()[-1].size
    path.write_bytes(path.read_bytes()[: int(left * end)])
    with pytest.raises(UserError, match=r"part-000000\.tar is no tar file, or it is damaged"):
        open_reader(str(tmp_path))


def test_tar_files_that_are_damaged_or_have_no_end(pictures, tmp_path, caplog):
    path = shards(tmp_path, pictures, size=12) / "part-000000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    place = members[6].offset
    path.write_bytes(whole[:place] + b"x" * 512 + whole[place + 512 :])
    with pytest.raises(UserError, match=f"at byte {place} there is neither a file nor the mark of the end"):
        open_reader(str(tmp_path))
    path.write_bytes(whole[:place])
    assert len(open_reader(str(tmp_path))) == 3
    assert "part-000000.tar has no mark at its end" in caplog.text
    path.write_bytes(whole[:200])
    with pytest.raises(UserError, match="truncated header"):
        open_reader(str(path))


def test_a_tar_file_that_shrinks_and_members_that_are_no_images(pictures, tmp_path):
    """They are counted and replaced, as files are."""
    files = {**pictures, "5.jpg": b"no image", "12.png": b""}
    path = write_tar(tmp_path / "images.tar", dict(sorted(files.items())))
    data = ImageDataset(open_reader(str(path)), train_transform((16, 16)), 4, 0, "RGB")
    names = [data.name(i).rsplit("/", 1)[1] for i in range(len(data))]
    unreadable = data[0, names.index("5.jpg")].unreadable
    assert unreadable[unreadable >= 0].tolist() == [names.index("5.jpg")]
    assert data[0, names.index("12.png")].unreadable[0] == names.index("12.png")
    path.write_bytes(path.read_bytes()[: 3 * 1024])
    (name,) = CorruptImages(data, 1.0).add({names.index("9.png")})
    assert name == f"{path}/9.png" and data[0, names.index("9.png")].unreadable[0] == names.index("9.png")


def test_the_last_member_of_a_name_counts(pictures, tmp_path):
    """As when the tar file is unpacked."""
    first, second = list(pictures.values())[:2]
    (tmp_path / "a.tar").write_bytes(tar_of([("a.jpg", first), ("a.jpg", second)]))
    reader = open_reader(str(tmp_path / "a.tar"))
    assert len(reader) == 1 and reader[0][0].read() == second


def test_missing_labels(pictures, tmp_path):
    shards(tmp_path / "train", pictures, kind=None)
    with pytest.raises(UserError, match=r"12 of 12 image\(s\) .*train have no label.*part-\d+\.tar/0\.\w+: beside KEY"):
        open_labelled(str(tmp_path), "train")
    one = dict(list(pictures.items())[:4])
    samples = {k: v for name, content in one.items() for k, v in with_labels(name, content, "json").items()}
    broken = next(name for name in samples if name.endswith(".json"))
    for content in (b"{", b'{"label": [1]}', b"[]", b"\xff"):
        shutil.rmtree(tmp_path / "train")
        write_tar(tmp_path / "train" / "part-000000.tar", {**samples, broken: content})
        with pytest.raises(UserError, match=r"1 of 4 image\(s\) in the tar files of .* have no label"):
            open_labelled(str(tmp_path), "train")


def test_indices_are_kept(pictures, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PRETRAIN_CACHE", str(tmp_path / "memory"))
    path = write_tar(tmp_path / "images.tar", pictures)
    original, calls = tar_index._find, []
    monkeypatch.setattr(tar_index, "_find", lambda path: calls.append(path) or original(path))
    first = tar_index.tar_index(path)
    for found, expected in zip(tar_index.tar_index(path), first, strict=True):
        assert np.array_equal(found, expected) and found.dtype == expected.dtype
    assert len(calls) == 1
    (kept,) = (tmp_path / "memory").iterdir()
    kept.write_bytes(kept.read_bytes()[:-300])
    assert len(tar_index.tar_index(path).names) == 12 and len(calls) == 2
    write_tar(path, dict(list(pictures.items())[:5]))
    assert len(tar_index.tar_index(path).names) == 5 and len(calls) == 3
    monkeypatch.setenv("PRETRAIN_CACHE", str(kept))  # no folder
    with caplog.at_level(logging.INFO):
        assert len(tar_index.tar_index(path).names) == 5 and len(calls) == 4
    assert "will be searched again next time" in caplog.text
