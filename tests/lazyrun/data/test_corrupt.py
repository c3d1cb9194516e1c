"""Images that cannot be used: left out, named and counted, and a run goes on, up to a share of them."""

import itertools
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from PIL import Image
from shapes import CONFIG, REPO
from tiny_coco import HEIGHT, WIDTH, content, register, write

from lazyrun.config.loading import load_config
from lazyrun.data.corrupt import CorruptImageError
from lazyrun.data.evaluation_loader import build_test_loader
from lazyrun.data.loader import build_train_loader
from pretrain.common.errors import UserError

IMAGES = 10


@pytest.fixture
def records(tmp_path):
    """Ten images: the third was cut off, the fifth has another size than annotated."""
    for i in range(1, IMAGES + 1):
        Image.effect_noise((WIDTH, HEIGHT), 50).convert("RGB").save(tmp_path / f"{i}.jpg")
    whole = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (30, 20)).save(tmp_path / "5.jpg")
    data = content(IMAGES)
    for image in data["images"]:
        image["file_name"] = f"{image['id']}.jpg"
    return DatasetCatalog.get(register(write(tmp_path, data)))


def mapper():
    return instantiate(load_config(str(REPO / CONFIG)).dataloader.train.mapper)


def batches(loader, count):
    return [[(Path(s["file_name"]).name, s["image"]) for s in batch] for batch in itertools.islice(loader, count)]


def same(a, b):
    return all(
        x == y and torch.equal(p, q)
        for one, two in zip(a, b, strict=True)
        for (x, p), (y, q) in zip(one, two, strict=True)
    )


def test_the_mapper_says_which(records):
    read = mapper()
    with pytest.raises(CorruptImageError, match=r"3\.jpg cannot be read as an image"):
        read(records[2])
    with pytest.raises(CorruptImageError, match=r"5\.jpg"):
        read(records[4])


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_and_resumes_in_place(records, caplog, workers):
    arguments = dict(mapper=mapper(), total_batch_size=2, seed=3, max_corrupt=0.2)
    whole = batches(build_train_loader(records, **arguments), 15)
    names = [name for batch in whole for name, _ in batch]
    assert len(names) == 30 and not {"3.jpg", "5.jpg"} & set(names)
    messages = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert len(messages) == 2 and any("3.jpg cannot be read" in m for m in messages)
    assert messages[-1].endswith("it is left out (2 of 10 images).")
    resumed = build_train_loader(records, **arguments, num_workers=workers)
    resumed.batch_sampler.start = 8
    assert same(batches(resumed, 7), whole[8:])


def test_too_many_end_the_training(records):
    loader = build_train_loader(records, mapper=mapper(), total_batch_size=2, seed=3, max_corrupt=0.1)
    with pytest.raises(UserError, match=r"2 of 10 images cannot be used, more than data\.max_corrupt=0\.1 allows, for"):
        batches(loader, 30)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_unusable_images(records, workers):
    loader = build_train_loader(
        [records[2]] * 3, mapper=mapper(), total_batch_size=1, num_workers=workers, max_corrupt=1.0
    )
    with pytest.raises(UserError, match=r"100 images in a row cannot be used; the last: .*3\.jpg"):
        batches(loader, 1)


class LeftOut(list):
    leave_out = list.append


def config(tmp_path, max_corrupt):
    cfg = load_config(str(REPO / CONFIG), [f"data.max_corrupt={max_corrupt}", "dataloader.test.batch_size=3"])
    cfg.dataloader.test.dataset.names = str(tmp_path / "data.json")
    return cfg


@pytest.mark.usefixtures("records")
def test_evaluation_goes_on(tmp_path, caplog):
    left_out = LeftOut()
    loader = build_test_loader(config(tmp_path, 0.2), left_out)
    assert len(loader) == 4
    names = [name for batch in batches(loader, 9) for name, _ in batch]
    assert names == [f"{i}.jpg" for i in range(1, 11) if i not in (3, 5)] and left_out == [3, 5]
    assert "2 of 10 images are not evaluated" in caplog.text


@pytest.mark.usefixtures("records")
def test_too_many_end_the_evaluation(tmp_path):
    with pytest.raises(UserError, match=r"2 of 10 images cannot be used, more than data\.max_corrupt=0\.1"):
        batches(build_test_loader(config(tmp_path, 0.1), LeftOut()), 9)


@pytest.mark.parametrize("share", ["2", "-0.1", "nan"])
def test_no_share(share):
    with pytest.raises(UserError, match=r"data\.max_corrupt=\S+ must be a share from 0 to 1"):
        load_config(str(REPO / CONFIG), [f"data.max_corrupt={share}"])
