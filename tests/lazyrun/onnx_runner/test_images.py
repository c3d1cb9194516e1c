"""Images are prepared as detectron2 and the project's own transforms prepare them."""

import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image
from tiny_models import pictures

from convmae_seg.augmentation import ResizeKeepRatio
from lazyrun.export.resizing import _step
from lazyrun.inference.predictor import read_rgb as eager_read_rgb
from lazyrun.onnx_runner import images
from lazyrun.onnx_runner.images import find_images, prepare, read_rgb
from lazyrun.onnx_runner.metadata import OnnxFileError
from pretrain.common.errors import UserError
from pretrain.common.images import IMAGE_SUFFIXES
from pretrain.data.transforms import evaluation_transform

DETECTRON2 = [
    T.ResizeShortestEdge(48, 60),
    T.ResizeShortestEdge(100, 1000),
    T.FixedSizeCrop((96, 112), pad=True),
]


@pytest.mark.parametrize("augmentation", DETECTRON2, ids=["reduced", "enlarged", "padded"])
@pytest.mark.parametrize("input_format", ["RGB", "BGR"])
def test_detectron2s_transforms(augmentation, input_format):
    for image in pictures():
        inputs = T.AugInput(image[..., ::-1] if input_format == "BGR" else image)
        augmentation(inputs)
        ours = prepare(image, [_step(augmentation)], input_format)
        assert np.array_equal(ours, inputs.image.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize(("short_edge", "enlarge"), [(30, True), (120, True), (120, False)])
def test_segmentations_resize(short_edge, enlarge):
    augmentation = ResizeKeepRatio(short_edge=short_edge, aspect=4, enlarge=enlarge)
    for image in pictures():
        inputs = T.AugInput(image)
        augmentation(inputs)
        ours = prepare(image, [_step(augmentation)], "RGB")
        assert ours.shape[1:] == inputs.image.shape[:2]
        difference = np.abs(ours.transpose(1, 2, 0) - inputs.image)
        assert difference.max() <= 1 and difference.mean() < 0.005


def test_classifiers_crop():
    transform = evaluation_transform([64, 64], 3)
    mean, std = (v.numpy()[:, None, None] for v in (transform.transforms[-1].mean, transform.transforms[-1].std))
    for image in pictures():
        step = {"step": "centre_crop", "short_edge": 73, "height": 64, "width": 64}
        expected = transform(Image.fromarray(image)).numpy() * std + mean
        assert np.abs(prepare(image, [step], "RGB") / 255 - expected).max() < 1e-5


def test_what_cannot_be_told_is_refused():
    for augmentation in (T.RandomFlip(), T.ResizeShortestEdge((40, 50), sample_style="choice")):
        with pytest.raises(UserError, match="cannot be told to users of an exported file"):
            _step(augmentation)


def test_reading(tmp_path):
    grey = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    Image.fromarray(grey).save(tmp_path / "grey16.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures()[0]).save(tmp_path / "turned.jpg", exif=exif)
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(read_rgb(path), eager_read_rgb(path))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(OnnxFileError, match=r"broken.png cannot be read as an image"):
        read_rgb(tmp_path / "broken.png")
    assert [p.name for p in find_images([str(tmp_path)], tmp_path / "out")] == [
        "broken.png",
        "grey16.png",
        "turned.jpg",
    ]
    with pytest.raises(OnnxFileError, match="names no image"):
        find_images([str(tmp_path / "*.bmp")], tmp_path / "out")


def test_folders_give_the_same_files_as_for_the_predictor():
    assert images.SUFFIXES == IMAGE_SUFFIXES
