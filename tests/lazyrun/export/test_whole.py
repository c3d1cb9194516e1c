"""Exported files find what the eager models find, read without PyTorch, and say what they are."""

from functools import partial

import numpy as np
import pytest
from smaller_files import check_smaller_files, save_pictures
from tiny_models import FAMILIES, pictures, tiny_predictor

from lazyrun.export.compare import Agreement, compare_detections
from lazyrun.export.whole import compare_with, export_whole
from lazyrun.onnx_runner import OnnxFileError, OnnxModel
from lazyrun.onnx_runner.detections import Detections
from pretrain.common.errors import UserError

QUICK = ("demo", "UperNet")


@pytest.mark.parametrize("family", [pytest.param(f, marks=[] if f in QUICK else pytest.mark.slow) for f in FAMILIES])
def test_exported_files_find_the_same(family, tmp_path):
    pytest.importorskip("onnxscript")
    predictor = tiny_predictor(family)
    path = tmp_path / "model.onnx"
    metadata = export_whole(predictor, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert metadata.task == ("segmentation" if family == "UperNet" else "detection")
    result = compare_with(tiny_predictor(family), path, pictures())
    assert result.holds, result
    assert result.images == 3
    model = OnnxModel(path)
    assert model.metadata == metadata
    if metadata.task == "detection":
        assert result.pairs > 60
        sliced = Agreement()
        compare_detections(sliced, predictor(pictures(1)[0], slice=40), model(pictures(1)[0], slice=40))
        assert sliced.holds and sliced.pairs > 60, sliced
        model.score_threshold = 1.1
        assert model(pictures(1)[0]).boxes.shape == (0, 4)
    else:
        export = partial(export_whole, predictor)
        for way, smaller in check_smaller_files(path, save_pictures(tmp_path), export):
            result = compare_with(predictor, smaller, pictures())
            assert result.same / result.pixels > {"fp16": 0.99}.get(way, 0.9), (way, result)


def test_differences_are_found():
    found = Detections(
        (9, 9), np.array([[0, 0, 4, 4], [5, 5, 9, 9]], np.float32), np.array([0.9, 0.8]), np.array([0, 1])
    )
    from detectron2.structures import Boxes, Instances
    from torch import tensor

    def agreement(boxes, scores, classes):
        eager = Instances((9, 9), pred_boxes=Boxes(tensor(boxes)), scores=tensor(scores), pred_classes=tensor(classes))
        result = Agreement()
        compare_detections(result, eager, found)
        return result

    boxes = [[0.0, 0, 4, 4], [5, 5, 9, 9]]
    assert agreement(boxes, [0.9, 0.8], [0, 1]).holds
    assert agreement(boxes, [0.9, 0.8], [0, 0]).unpaired == 2
    assert agreement(boxes[:1], [0.9], [0]).unpaired == 1
    assert agreement(boxes, [0.9, 0.79], [0, 1]).score == pytest.approx(0.01, rel=1e-4)
    shifted = agreement([[0.0, 0, 4, 4], [5, 5, 9, 8]], [0.9, 0.8], [0, 1])
    assert shifted.box_iou == pytest.approx(0.75) and not shifted.holds


def test_files_of_others_are_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["out"])], "g", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a")
    for name, message in {
        "other": "not written by tools/export_model",
        "cut": "cannot be",
        "none": "does not exist",
    }.items():
        with pytest.raises(OnnxFileError, match=message):
            OnnxModel(tmp_path / f"{name}.onnx")
    with pytest.raises(UserError, match="does not exist; write it"):
        compare_with(None, tmp_path / "none.onnx", [])
