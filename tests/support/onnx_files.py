"""ONNX files without a network, for tests of what reads them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lazyrun.onnx_runner.metadata import Metadata


def constant_model(path: Path, outputs: dict[str, np.ndarray], metadata: Metadata) -> Path:
    """Writes a model that gives the same outputs for every image, and returns its path."""
    sizes = ["batch", 3, "height", "width"]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, sizes)
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
        for name, value in outputs.items()
    ]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in outputs.items()
    ]
    graph = helper.make_graph(nodes, "constant", [images], infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata.to_strings())
    onnx.save(model, path)
    return path
