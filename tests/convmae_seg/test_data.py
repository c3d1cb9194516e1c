"""The training loader of the ADE20K recipe goes on in place, and its samples are as they should be."""

import itertools
import pickle

import numpy as np
import torch
from detectron2.config import instantiate
from label_maps import write_pairs
from PIL import Image
from shapes import REPO

from convmae_seg.custom_data import use_custom_data
from lazyrun.config.loading import load_config

CONFIG = str(REPO / "projects/ConvMAESeg/configs/ADE20K/upernet_convmae_base_512_slide_160k.py")


def loader(tmp_path):
    options = [*write_pairs(tmp_path / "data", size=(70, 90)), "data.image_size=64"]
    options += ["dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0"]
    cfg = load_config(CONFIG, options)
    use_custom_data(cfg, training=True)
    return instantiate(cfg.dataloader.train)


def test_goes_on_in_place(tmp_path):
    train = loader(tmp_path)
    whole = list(itertools.islice(train, 5))
    train.batch_sampler.start = 3
    again = list(itertools.islice(train, 2))
    for ours, expected in zip(again, whole[3:], strict=True):
        for a, b in zip(ours, expected, strict=True):
            assert a["file_name"] == b["file_name"]
            assert torch.equal(a["image"], b["image"]) and torch.equal(a["sem_seg"], b["sem_seg"])


def test_workers_need_not_be_forked(tmp_path):
    train = loader(tmp_path)
    spawned = pickle.loads(pickle.dumps((train.dataset, train.collate_fn, train.worker_init_fn)))[0]
    assert torch.equal(spawned[0, 1]["image"], train.dataset[0, 1]["image"])


def test_images_of_sixteen_bits_are_what_those_of_eight_are(tmp_path):
    options = write_pairs(tmp_path / "data", count=1)
    cfg = load_config(CONFIG, options)
    use_custom_data(cfg, training=True)
    cfg.dataloader.train.mapper.augmentations = []
    grey = np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)
    (tmp_path / "data/images/0.jpg").unlink()
    images = []
    for pixels in (grey, grey.astype(np.uint16) * 257):
        Image.fromarray(pixels).save(tmp_path / "data/images/0.png")
        sample = instantiate(cfg.dataloader.train.mapper)(instantiate(cfg.dataloader.train.dataset)[0])
        images.append(sample["image"])
    assert torch.equal(*images) and images[0].float().std() > 50


def test_samples(tmp_path):
    samples = list(itertools.chain.from_iterable(itertools.islice(loader(tmp_path), 12)))
    padded = 0
    for sample in samples:
        assert sample["image"].shape == (3, 64, 64) and sample["sem_seg"].shape == (64, 64)
        assert (sample["height"], sample["width"]) == (70, 90)
        labels = sample["sem_seg"].numpy()
        assert set(np.unique(labels)) <= {0, 1, 2, 255}
        if sample["image"].is_floating_point():
            padded += 1
            mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1)
            assert torch.equal(sample["image"][:, -1], mean.expand(3, 64)) and (labels[-1] == 255).all()
    assert 0 < padded < len(samples)
