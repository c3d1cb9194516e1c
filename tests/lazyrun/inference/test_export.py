"""Exported models give what the originals do, also at sizes they were not exported at."""

import pytest
import torch
from detectron2.config import instantiate
from shapes import CONFIG, REPO, SMALL

from convmae_det import ConvViT
from convmae_det.attention.rel_pos import RelPosAttention, relative_positions
from lazyrun.config.loading import load_config
from lazyrun.inference import export
from lazyrun.inference.export import PixelPyramid, export_backbone, export_detector, size_divisor
from pretrain.common.errors import UserError


@pytest.fixture(scope="module")
def detector():
    """The demo's detector with few channels; random relative positions, so that they count."""
    torch.manual_seed(0)
    cfg = load_config(str(REPO / CONFIG), [*SMALL, "+model.backbone.net.rel_pos_zero_init=False"])
    return instantiate(cfg.model).eval()


def test_relative_positions_are_detectron2s():
    from detectron2.modeling.backbone.utils import get_rel_pos

    table = torch.randn(13, 5)
    for size in (7, 4, 11):
        assert torch.equal(relative_positions(size, table), get_rel_pos(size, size, table))


def test_attention_of_free_size_is_exact():
    """Grids smaller and larger than exported, which fill their windows or do not."""
    norm, attention = torch.nn.LayerNorm(16), RelPosAttention(16, 2, True, True, False, window_size=4)

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.norm = attention, norm

        def forward(self, x):
            return self.attention(x, self.norm)

    dynamic = (dict.fromkeys(range(3), torch.export.Dim.AUTO),)
    with torch.no_grad():
        exported = torch.export.export(Wrapped(), (torch.randn(2, 8, 9, 16),), dynamic_shapes=dynamic, strict=False)
        for size in ((1, 10, 8), (3, 5, 7), (2, 8, 8)):
            x = torch.randn(*size, 16)
            torch.testing.assert_close(exported.module()(x), attention(x, norm), rtol=0, atol=1e-6)


FREE_SIZE = [pytest.param(suffix, True, marks=pytest.mark.slow) for suffix in (".pt2", ".onnx")]


@pytest.mark.parametrize(("suffix", "dynamic"), [(".onnx", False), *FREE_SIZE])
def test_backbone_and_pyramid(detector, tmp_path, suffix, dynamic):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = tmp_path / f"pyramid{suffix}"
    assert export_backbone(PixelPyramid(detector), path, (64, 48), dynamic=dynamic) <= 1e-5
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing beside it: no temporary file, no weights
    if dynamic and suffix == ".pt2":
        images = torch.rand(3, 3, 40, 104) * 255
        expected = detector.backbone((images - detector.pixel_mean) / detector.pixel_std)
        for ours, theirs in zip(torch.export.load(path).module()(images), expected.values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_whole_detector(detector, tmp_path):
    image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    path = tmp_path / "detector.ts"
    deviation, names, objects = export_detector(detector, path, image)
    assert deviation <= 1e-5 and objects > 0
    assert names == ["pred_boxes", "pred_classes", "pred_masks", "scores", "image_size"]
    with torch.no_grad():
        other = torch.rand(3, 56, 40) * 255
        expected = detector.inference([{"image": other}], do_postprocess=False)[0]
        torch.testing.assert_close(torch.jit.load(str(path))(other)[0], expected.pred_boxes.tensor)


def test_deviating_export_is_not_kept(detector, tmp_path, monkeypatch):
    broken = (lambda program, path, model: path.touch(), lambda path: lambda images: [torch.zeros(1)] * 2)
    monkeypatch.setitem(export._WRITERS, ".pt2", broken)
    with pytest.raises(UserError, match=r"pyramid\.pt2 is not kept: the exported model deviates"):
        export_backbone(PixelPyramid(detector), tmp_path / "pyramid.pt2", (64, 64))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "size", "dynamic", "message"),
    [
        ("a.pt2", (60, 64), False, "Size 60x64 is not divisible by 8, .* pad to 64x64"),
        ("a.pt2", (32, 64), True, "no larger than one attention window of 32 pixels"),
        ("a.pth", (64, 64), False, r"must end in \.pt2 or \.onnx, or in \.ts"),
    ],
)
def test_mistakes(detector, tmp_path, name, size, dynamic, message):
    with pytest.raises(UserError, match=message):
        export_backbone(PixelPyramid(detector), tmp_path / name, size, dynamic=dynamic)


def detector_with_bias_tables():
    cfg = load_config(str(REPO / "projects/MIMDet/configs/COCO/convmae_base_mask_rcnn_FPN_25ep.py"))
    cfg.model.backbone.bottom_up.update(embed_dim=(8, 16, 24), depth=(1, 1, 1), num_heads=4, global_block_indexes=[0])
    return instantiate(cfg.model)


def test_backbones_with_bias_tables_are_exported(tmp_path):
    assert export_backbone(PixelPyramid(detector_with_bias_tables()), tmp_path / "a.pt2", (64, 64)) < 1e-5


def test_backbones_that_depend_on_values_are_refused_in_a_sentence(tmp_path):
    detector = detector_with_bias_tables()
    forward = detector.backbone.bottom_up.forward
    detector.backbone.bottom_up.forward = lambda x: forward(x if x.mean() > 0 else -x)
    with pytest.raises(UserError, match=r"cannot be exported by torch\.export"):
        export_backbone(PixelPyramid(detector), tmp_path / "a.pt2", (64, 64))
    assert not list(tmp_path.iterdir())


def test_pyramid_of_the_published_detectors_divides_by_32():
    cfg = load_config(str(REPO / "projects/ConvMAEDet/configs/COCO/mask_rcnn_vitdet_convmae_b_25ep.py"))
    cfg.model.backbone.net.update(embed_dim=(8, 8, 12), depth=(1, 1, 1), window_block_indexes=[])
    backbone = instantiate(cfg.model.backbone)
    assert isinstance(backbone.net, ConvViT) and size_divisor(backbone) == 32
