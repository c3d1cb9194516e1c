"""Files of float16 and int8: what they keep in float32, that they run, and that mistakes are named."""

import numpy as np
import pytest
from smaller_files import from_file, save_pictures
from tiny_models import tiny_predictor

from lazyrun.export.calibration import MOST_IMAGES, check_calibration, network_input
from lazyrun.export.forms import detector_form
from lazyrun.export.layers import SCOPES, module_of
from lazyrun.export.smaller import _half, write_precise
from lazyrun.export.whole import compare_with
from lazyrun.onnx_runner import OnnxModel
from pretrain.common import onnx_files
from pretrain.common.errors import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def predictor():
    return tiny_predictor("demo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, predictor):
    """A float32 file of the demo's detector, and eight pictures."""
    folder = tmp_path_factory.mktemp("smaller")
    save_pictures(folder)
    onnx_files.write_onnx(detector_form(predictor), folder / "fp32.onnx")
    return folder


@pytest.fixture
def smaller(folder, predictor):
    """Writes a smaller file from the one float32 file."""

    def write(precision, images=None):
        path = folder / f"{precision}-{len(images or ())}.onnx"
        with from_file(folder / "fp32.onnx"):
            metadata = write_precise(detector_form(predictor), path, precision, images)
        assert metadata == OnnxModel(path).metadata
        assert not list(folder.glob(".*")), "temporary files are left"
        return path, metadata

    return write


def agreement(predictor, path, folder):
    return compare_with(predictor, path, sorted(folder.glob("*.png")))


def test_float16_keeps_boxes_and_scores_in_float32(smaller, folder, predictor):
    path, metadata = smaller("fp16")
    assert metadata.precision == "float16"
    assert path.stat().st_size < 0.6 * (folder / "fp32.onnx").stat().st_size
    graph = onnx.load(path).graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    casts = {
        node.output[0]
        for node in graph.node
        if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT16
    }
    for node in graph.node:
        if not module_of(node) or node.op_type in ("Softmax", "LayerNormalization", "RoiAlign", "TopK"):
            if node.op_type != "Cast":
                assert not (halves | casts).intersection(node.input), node.name
        elif node.op_type in ("Conv", "Gemm"):
            assert node.input[1] in halves, node.name
    assert all(value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT16 for value in (*graph.input, *graph.output))
    result = agreement(predictor, path, folder)
    # Random weights spread scores less than trained ones, so more of them change places.
    assert result.pairs > 100 and result.unpaired <= 0.15 * result.pairs, result
    assert result.close >= 0.7 * result.pairs, result


def test_anchors_stay_in_float32(tmp_path):
    """They are sums of constants, which the exporter leaves in the graph where they are large."""
    shifts, sizes = 1000 + np.arange(12000.0).reshape(3000, 1, 4) / 7, np.array([[[-8.3, -8.3, 8.3, 8.3]]])
    make = onnx.helper.make_node
    nodes = [
        make("Add", ["shifts", "sizes"], ["anchors"], name="anchors"),
        make("Add", ["anchors", "images"], ["boxes"], name="boxes"),
    ]
    for node, scopes in zip(nodes, ("['', 'model.anchors', 'add']", "['', 'add']"), strict=True):
        onnx.helper.set_model_props(node, {SCOPES: scopes})
    tensors = [
        onnx.numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in {"shifts": shifts, "sizes": sizes}.items()
    ]
    images, boxes = (onnx.helper.make_tensor_value_info(name, 1, None) for name in ("images", "boxes"))
    graph = onnx.helper.make_graph(nodes, "anchors", [images], [boxes], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "full.onnx")
    half = onnxruntime.InferenceSession(_half(tmp_path / "full.onnx").SerializeToString())
    (found,) = half.run(None, {"images": np.zeros((1, 1, 4), np.float32)})
    assert np.array_equal(found, shifts.astype(np.float32) + sizes.astype(np.float32))


def test_int8_with_and_without_calibration(smaller, folder, predictor):
    images = sorted(folder.glob("*.png"))
    full = (folder / "fp32.onnx").stat().st_size
    for given, share in ((images, 0.45), (None, 0.85)):
        path, metadata = smaller("int8", given)
        assert (metadata.precision, metadata.calibration_images) == ("int8", len(given or ()))
        assert path.stat().st_size < share * full
        operators = [node.op_type for node in onnx.load(path).graph.node]
        assert ("QuantizeLinear" if given else "DynamicQuantizeLinear") in operators
        result = agreement(predictor, path, folder)
        assert result.pairs > 0.7 * (result.pairs + result.unpaired / 2), result


def test_calibration_sees_what_the_runner_gives(folder):
    model = OnnxModel(folder / "fp32.onnx")
    seen = []
    model.run, run = lambda images: (seen.append(images), run(images))[1], model.run
    model(folder / "1.png")
    assert np.array_equal(seen[0], network_input(folder / "1.png", model.metadata))


def test_calibration_images(folder, tmp_path, caplog):
    metadata, images = OnnxModel(folder / "fp32.onnx").metadata, sorted(folder.glob("*.png"))
    with pytest.raises(UserError, match="7 of 7 can be used"):
        check_calibration(images[:7], metadata)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="7 of 8 can be used"):
        check_calibration([*images[:7], tmp_path / "broken.png"], metadata)
    assert "broken.png" in caplog.text
    assert check_calibration([*images, tmp_path / "broken.png"], metadata) == images
    many = [images[i % 8] for i in range(1000)]
    assert len(check_calibration(many, metadata)) == MOST_IMAGES


def test_mistakes(predictor, tmp_path):
    form = detector_form(predictor)
    with pytest.raises(UserError, match="'bf16' is not known; there are fp32, fp16, int8"):
        write_precise(form, tmp_path / "a.onnx", "bf16")
    with pytest.raises(UserError, match="Calibration images are for int8 alone"):
        write_precise(form, tmp_path / "a.onnx", "fp16", [tmp_path / "a.png"])
    assert not list(tmp_path.iterdir())
