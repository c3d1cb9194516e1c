"""Folders of label maps named on the command line: what they change in a config, and what is wrong with them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from label_maps import NAMES, write_pairs
from PIL import ExifTags, Image
from shapes import REPO

from convmae_seg.custom_data import use_custom_data
from convmae_seg.label_map_check import check_datasets, check_label_maps
from lazyrun.config.loading import load_config
from lazyrun.data.categories import categories_of
from lazyrun.data.loader import corrupt_option
from pretrain.common.errors import UserError

CONFIG = str(REPO / "projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py")


def load(options, training=True):
    cfg = load_config(CONFIG, options)
    use_custom_data(cfg, training=training)
    return cfg


def with_validation(root, first=0):
    train = write_pairs(root / "train", first=first)
    val = write_pairs(root / "val", first=first)
    return [*train, *(o.replace("train_", "val_") for o in val[:2])]


@pytest.mark.parametrize(("first", "ids"), [(0, [0, 1, 2]), (1, [1, 2, 3])])
def test_classes_reach_model_data_and_metadata(tmp_path, first, ids):
    cfg = load(with_validation(tmp_path, first))
    assert cfg.model.num_classes == cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 3
    name = cfg.dataloader.train.dataset.names
    assert categories_of(name) == [{"id": i, "name": n} for i, n in zip(ids, NAMES, strict=True)]
    assert cfg.dataloader.evaluator.dataset_name == cfg.dataloader.test.dataset.names == str(tmp_path / "val/labels")
    sample = instantiate(cfg.dataloader.train.mapper)(instantiate(cfg.dataloader.train.dataset)[0])
    assert sample["image"].shape == (3, 40, 60) and sample["sem_seg"].shape == (40, 60)
    assert set(sample["sem_seg"].unique().tolist()) == {0, 1, 2, 255}
    train, _ = check_datasets(cfg)
    assert (train.images, train.checked, train.faults, train.absent) == (3, 3, [], [])
    assert train.pixels.tolist() == [3 * 60 * 13, 3 * 60 * 14, 3 * 60 * 12, 3 * 60] and train.maps.tolist() == [3] * 4
    assert "tree" in str(train) and "2.5% of the pixels ignored" in str(train)


def test_dumped_config_is_the_same_again(tmp_path):
    LazyConfig.save(load(with_validation(tmp_path)), str(tmp_path / "config.yaml"))
    cfg = load_config(str(tmp_path / "config.yaml"))
    use_custom_data(cfg, training=True)
    LazyConfig.save(cfg, str(tmp_path / "again.yaml"))
    assert (tmp_path / "config.yaml").read_text() == (tmp_path / "again.yaml").read_text()


def test_without_validation_set(tmp_path, caplog):
    with caplog.at_level("INFO"):
        cfg = load(write_pairs(tmp_path / "data"))
    assert "evaluator" not in cfg.dataloader and "There is no data.val_images: nothing will be evaluated" in caplog.text
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    later = write_pairs(tmp_path / "val")
    later = load_config(str(tmp_path / "config.yaml"), [o.replace("train_", "val_") for o in later])
    use_custom_data(later, training=False)
    assert later.dataloader.evaluator.dataset_name == str(tmp_path / "val/labels")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: [o[0], *o[2:]], "data.train_images needs data.train_labels too"),
        (lambda o: o[1:], "data.train_labels needs data.train_images too"),
        (lambda o: o[2:], "data.class_names and data.ignore_label need folders"),
        (lambda o: [x.replace("train_", "val_") for x in o], "data.val_images without data.train_images"),
        (lambda o: [*o, "data.train_labels=no"], "data.train_labels=no: there is no such folder"),
        (lambda o: [*o[:2], o[3]], "data.class_names=FILE is missing"),
        (lambda o: [*o, "data.class_names=no.txt"], "data.class_names=no.txt: there is no such file"),
        (lambda o: o[:3], "data.ignore_label is missing; choose 255 if .* or 0 if"),
        (lambda o: [*o, "data.ignore_label=7"], "data.ignore_label is 7; choose 255 if .* or 0 if"),
        (lambda o: [*o, "data.ignore_label=false"], "data.ignore_label is False; choose 255"),
    ],
)
def test_mistakes(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load(change(write_pairs(tmp_path / "data")))


def test_options_of_detectors_are_none_here(tmp_path):
    with pytest.raises(UserError, match=r"data has no 'train_json'; did you mean 'data\.train_labels'"):
        load(["data.train_json=a.json"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", "is empty; it needs the name of each class, one a line"),
        (b"a\nb\na\n", "names 'a' twice"),
        (b"\xff\xfe\x00", "is not a text file in UTF-8"),
        ("\n".join(map(str, range(255))).encode(), "names 255 classes; 254 is the most"),
    ],
)
def test_files_of_class_names(tmp_path, content, message):
    options = write_pairs(tmp_path / "data")
    (tmp_path / "data" / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(options)


def other_size(root):
    Image.new("L", (61, 40)).save(root / "labels/1.png")


def in_colours(root):
    Image.new("RGB", (60, 40)).save(root / "labels/1.png")


def too_many_classes(root):
    (root / "classes.txt").write_text("ground\ntree\n")


def all_ignored(root):
    for path in (root / "labels").iterdir():
        Image.new("L", (60, 40), 255).save(path)


def black_and_white(root):
    (root / "classes.txt").write_text("ground\ntree\n")
    for path in (root / "labels").iterdir():
        mask = Image.new("L", (60, 40))
        mask.paste(255, (5, 5, 20, 20))
        mask.save(path)


def damaged_image(root):
    (root / "images/1.jpg").write_text("no image")


def deep_image(root):
    Image.new("F", (60, 40)).save(root / "images/1.jpg", format="TIFF")


def cut_off_image(root):
    path = root / "images/1.jpg"
    path.write_bytes(path.read_bytes()[:-200])  # its size can be read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_size, r"1\.png has 61x40 pixels, but its image .*1\.jpg has 60x40; a label map must have the size"),
        (in_colours, r"1\.png is a picture in RGB, not a label map"),
        (too_many_classes, r"0\.png holds label 2, but the 2 classes are 0 to 1 .* choose data.ignore_label=0"),
        (all_ignored, "no pixel has a class, all are ignored; is data.ignore_label the right one"),
        (black_and_white, r"hold 0 \(ground\) and 255 alone, and 255 is ignored: nothing could be learnt of tree\. In"),
        (damaged_image, r"1\.jpg cannot be read as an image"),
        (deep_image, r"1\.jpg cannot be read as an image: its pixels have 32 bits, .* save it with 8 or 16 bits"),
        (cut_off_image, r"1\.jpg cannot be read as an image: image file is truncated"),
    ],
)
def test_what_the_check_finds(tmp_path, change, message):
    options = write_pairs(tmp_path / "data")
    change(tmp_path / "data")
    with pytest.raises(UserError, match=message) as caught:
        check_datasets(load(options))
    assert str(caught.value).startswith("the data set cannot be used:\n  ")


@pytest.mark.parametrize(("first", "wrong"), [(1, 255), (0, 0)])
def test_the_other_convention_is_told(tmp_path, first, wrong, caplog):
    options = [*write_pairs(tmp_path / "data", first=first), f"data.ignore_label={wrong}"]
    if wrong == 255:
        with pytest.raises(UserError, match=r"holds label 3, but .* choose data.ignore_label=0"):
            check_datasets(load(options))
        return
    with caplog.at_level("WARNING"):
        check_datasets(load(options))
    assert "the last class never occurs and label 0 is ignored; for labels that count from 0" in caplog.text


def test_a_sample_of_a_large_data_set_is_read(tmp_path):
    cfg = load(write_pairs(tmp_path / "data", count=9))
    report = check_label_maps(cfg.dataloader.train.dataset.names, samples=3)
    assert (report.images, report.checked, report.maps.tolist()) == (9, 3, [3, 3, 3, 3])
    assert "9 images with label maps, 3 of them read" in str(report)


def test_another_number_of_classes_than_the_model_has(tmp_path):
    cfg = load(write_pairs(tmp_path / "data"))
    cfg.model.num_classes = 4
    with pytest.raises(UserError, match=r"3 classes, but model\.num_classes=4; set model\.num_classes=3"):
        check_datasets(cfg)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.ignore_label=0", r"model\.ignore_label=0: .* leave it out, data\.ignore_label says"),
        ("dataloader.test.dataset.names=[a,b]", r"names=\['a', 'b'\] must be one name"),
        (
            "dataloader.evaluator.dataset_name=other",
            r"dataset_name=other must be \S+, which dataloader\.test",
        ),
    ],
)
def test_options_that_contradict_how_label_maps_are_read(tmp_path, override, message):
    cfg = load_config(CONFIG, [*write_pairs(tmp_path / "data"), override])
    cfg.dataloader.train.dataset.names = "shapes_sem_seg_train"
    with pytest.raises(UserError, match=message):
        check_datasets(cfg, training=False)


def test_images_on_their_side(tmp_path):
    """A photo that its EXIF data turn upright fits the label map of the upright picture."""
    cfg = load(write_pairs(tmp_path / "data", count=1))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(tmp_path / "data/images/0.jpg", exif=exif)
    check_datasets(cfg)
    sample = instantiate(cfg.dataloader.train.mapper)(instantiate(cfg.dataloader.train.dataset)[0])
    assert sample["image"].shape == (3, 40, 60) and (sample["height"], sample["width"]) == (40, 60)


def test_metadata_of_several_data_sets(tmp_path):
    one = load(write_pairs(tmp_path / "a")).dataloader.train.dataset.names
    two = load(write_pairs(tmp_path / "b", first=1)).dataloader.train.dataset.names
    cfg = load_config(CONFIG)
    cfg.dataloader.train.dataset.names = [one, two]
    with pytest.raises(UserError, match="differ in reduce_zero_label"):
        instantiate(cfg.dataloader.train.mapper)
    assert MetadataCatalog.get(two).reduce_zero_label
    cfg.dataloader.train.dataset.names = "no_such_set"
    with pytest.raises(UserError, match="'no_such_set' has no label maps that are registered"):
        instantiate(cfg.dataloader.train.mapper)


def test_ade20k_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(str(REPO / "projects/ConvMAESeg/configs/ADE20K/upernet_convmae_base_512_slide_160k.py"))
    with pytest.raises(UserError, match=r"ADEChallengeData2016\.zip, unzip it and set DETECTRON2_DATASETS") as caught:
        check_datasets(cfg)
    assert len(str(caught.value).splitlines()) == 3  # the head, and one line for each of the two data sets


def test_masks_of_black_and_white(tmp_path):
    """With 255 ignored, nothing could be learnt of the object."""
    options = write_pairs(tmp_path / "data")
    (tmp_path / "data/classes.txt").write_text("background\nobject\n")
    for path in (tmp_path / "data/labels").iterdir():
        labels = np.zeros((40, 60), np.uint8)
        labels[10:20, 10:20] = 255
        Image.fromarray(labels).save(path)
    cfg = load(options)
    with pytest.raises(
        UserError, match=r"hold 0 \(background\) and 255 alone, .* of object\. .* write 1 in place of 255"
    ):
        check_datasets(cfg)
    Image.fromarray(labels // 255).save(path)  # one that is right
    check_datasets(cfg)


def test_unusable_images_are_left_out_up_to_a_share(tmp_path, caplog):
    options = write_pairs(tmp_path / "data", count=8)
    Image.new("RGB", (9, 9)).save(tmp_path / "data/images/1.jpg")
    (tmp_path / "data/images/2.jpg").write_bytes((tmp_path / "data/images/2.jpg").read_bytes()[:200])
    with pytest.raises(UserError, match=r"2\.jpg cannot be read as an image"):
        check_datasets(load(options))
    cfg = load([*options, "data.max_corrupt=0.3", "dataloader.train.total_batch_size=2"])
    check_datasets(cfg)
    assert "1.jpg" in caplog.text and "2.jpg cannot be read" in caplog.text
    loader = instantiate(dict(cfg.dataloader.train) | corrupt_option(cfg))
    names = {Path(s["file_name"]).name for batch in itertools.islice(loader, 12) for s in batch}
    assert names == {f"{i}.jpg" for i in (0, 3, 4, 5, 6, 7)}


def test_the_tiny_config_takes_photos(tmp_path):
    cfg = load_config(CONFIG, write_pairs(tmp_path / "data", count=2, size=(150, 200)))
    use_custom_data(cfg, training=True)
    loader = instantiate(dict(cfg.dataloader.train) | {"total_batch_size": 2})
    for sample in next(iter(loader)):
        assert sample["image"].shape == (3, 64, 64) and sample["sem_seg"].shape == (64, 64)
