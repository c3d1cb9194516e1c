"""Tar files give what the unpacked folder would, in the order that is asked for."""

import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tar_files
import torch
from tar_files import CLASSES, class_of, shards, tar_of, with_labels, write_tar

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.data import tar_index
from pretrain.data.datasets import ImageDataset
from pretrain.data.labels import LabelledImages, class_names, open_labelled, take_fraction
from pretrain.data.readers import open_reader
from pretrain.data.reading_order import shuffled_by_shards
from pretrain.data.samplers import StatelessSampler, train_loader
from pretrain.data.transforms import evaluation_pixels, train_transform


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return tar_files.pictures()


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


def test_the_last_member_of_a_name_counts(pictures, tmp_path):
    """As when the tar file is unpacked."""
    first, second = list(pictures.values())[:2]
    (tmp_path / "a.tar").write_bytes(tar_of([("a.jpg", first), ("a.jpg", second)]))
    reader = open_reader(str(tmp_path / "a.tar"))
    assert len(reader) == 1 and reader[0][0].read() == second


def test_other_parts_of_a_sample_are_no_images(pictures, tmp_path, caplog):
    """Of the same key in the same folder; what only looks like such a part is an image, in tar files as in folders."""
    caplog.set_level(logging.INFO)
    picture = pictures["1.jpg"]
    images = [
        "a.JPG",
        "a.2.jpg",
        "x.y/b.png",
        "c/a.depth.png",
        "my.photo.jpg",
        "my.other.photo.png",
        "v1.5/d.jpg",
        ".e.jpg",
    ]
    parts = ["a.seg.png", "x.y/b.mask.0.jpeg"]
    write_tar(tmp_path / "a.tar", dict.fromkeys([*parts, *images], picture) | {"a.cls": b"ant"})
    reader = open_reader(str(tmp_path / "a.tar"))
    assert sorted(reader.filename(i).removeprefix("a.tar/") for i in range(len(reader))) == sorted(images)
    assert "2 file(s) such as a.seg.png are no images but parts of samples" in caplog.text
    (tmp_path / "folder").mkdir()
    for name in ("a.jpg", "a.seg.png"):
        (tmp_path / "folder" / name).write_bytes(picture)
    assert len(open_reader(str(tmp_path / "folder"))) == 2


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


def test_one_place_tells_the_classes_of_all(pictures, tmp_path, caplog):
    """A folder of all images, or the file, does not stand in for a label that is missing."""
    samples = {f"images/{k}": v for name, c in pictures.items() for k, v in with_labels(name, c, "cls").items()}
    write_tar(tmp_path / "train" / "a.tar", {k: v for k, v in samples.items() if k != "images/7.cls"})
    with pytest.raises(UserError, match=r"1 of 12 image\(s\) .* have no label, for example a\.tar/images/7\.jpg"):
        open_labelled(str(tmp_path), "train")
    a, b, c = (pictures[name] for name in ("1.jpg", "2.jpg", "4.jpg"))
    write_tar(tmp_path / "train" / "a.tar", {"ant/1.jpg": a, "bee/2.jpg": b, "4.jpg": c})
    with pytest.raises(UserError, match=r"1 of 3 image\(s\) .* have no label, for example a\.tar/4\.jpg"):
        open_labelled(str(tmp_path), "train")
    write_tar(tmp_path / "train" / "a.tar", {"ant/1.jpg": a, "ant/queens/2.jpg": b})
    with pytest.raises(UserError, match=r"folders within class folders, such as a\.tar/ant/queens"):
        open_labelled(str(tmp_path), "train")
    write_tar(tmp_path / "train" / "a.tar", {"1.jpg": a, "1.cls": b"ant", "2.jpg": b, "2.cls": b"bee"})
    write_tar(tmp_path / "train" / "b.tar", {"1.jpg": a, "1.json": b'{"label": 0}'})
    assert class_names(open_labelled(str(tmp_path), "train")) == ["0", "ant", "bee"]
    assert "1 tar file(s) have numbers for labels and 1 have names" in caplog.text


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["imagenet1k-train-0000", "imagenet1k-train-0001", "imagenet1k-validation-00"], "(train, validation)"),
        (["train", "val"], "(train, val)"),
        (["train-0000", "train-0001"], None),
        (["trains", "valleys", "contest"], None),  # classes
    ],
)
def test_tar_files_of_several_splits_are_told_of(pictures, tmp_path, caplog, names, told):
    for name in names:
        write_tar(tmp_path / f"{name}.tar", dict(list(pictures.items())[:1]))
    assert len(open_reader(str(tmp_path))) == len(names)
    warnings = [record.message for record in caplog.records if "several splits" in record.message]
    assert len(warnings) == (told is not None)
    assert told is None or told in warnings[0]
