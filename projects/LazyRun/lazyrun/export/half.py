"""Float16 files: weights and layers in float16, everything that needs more in float32.

ONNX Runtime's own converter rounds whatever passes between two nodes, also between those that it leaves in float32, and
so box coordinates of 1000 pixels to half of one; where two such nodes read one tensor its files are not valid. So nodes
are chosen here, and its conversion of tensors is used.
"""

from collections.abc import Sequence
from typing import Any

from lazyrun.export.layers import nodes_in_float16

__all__ = ["to_float16"]


def to_float16(model: Any) -> None:
    """Brings an ONNX model of float32 to float16 in place, but for its inputs and outputs and what stays in float32.

    A tensor between two nodes of float16 is float16. Casts stand where one of the two is in float32.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == FLOAT}
    graph = model.graph
    floats |= {tensor.name for tensor in graph.initializer if tensor.data_type == FLOAT}
    chosen = set(nodes_in_float16(graph))
    nodes = [node for node in graph.node if node.name in chosen]
    made = {name for node in nodes for name in node.output if name in floats}
    kept = {value.name for value in graph.output}
    kept |= {name for node in graph.node if node.name not in chosen for name in node.input}
    weights = _halve_weights(graph, {name for node in nodes for name in node.input}, kept)
    casts_in: dict[str, Any] = {}
    casts_out: dict[str, Any] = {}
    for node in nodes:
        for names, casts in ((node.input, casts_in), (node.output, casts_out)):
            for i, name in enumerate(names):
                if name not in floats:
                    continue
                names[i] = weights.get(name) or name + HALF
                if name in weights or (names is node.input and name in made):
                    continue
                if names is node.input:
                    casts[name] = _cast(name, name + HALF, FLOAT16)
                elif name in kept:
                    casts[name] = _cast(name + HALF, name, FLOAT)
    _insert(graph, casts_in, casts_out)
    del graph.value_info[:]  # of the former types


FLOAT, FLOAT16 = 1, 10
"""Element types of ONNX tensors."""

HALF = "_float16"


def _halve_weights(graph: Any, read: set[str], kept: set[str]) -> dict[str, str]:
    """Converts constants that nodes of float16 read; those that others read as well are there twice. By old name."""
    from onnxruntime.transformers.float16 import convert_tensor_float_to_float16

    names = {}
    for tensor in list(graph.initializer):
        if tensor.name not in read or tensor.data_type != FLOAT:
            continue
        names[tensor.name] = tensor.name + HALF
        if tensor.name in kept:
            copy = graph.initializer.add()
            copy.CopyFrom(tensor)
            tensor = copy
        convert_tensor_float_to_float16(tensor)
        tensor.name += HALF
    return names


def _cast(source: str, target: str, kind: int) -> Any:
    import onnx

    return onnx.helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)


def _insert(graph: Any, casts_in: dict[str, Any], casts_out: dict[str, Any]) -> None:
    """Puts casts behind the nodes that make what they read; ONNX wants nodes in the order of their execution."""
    nodes: Sequence[Any] = list(graph.node)
    first = [casts_in.pop(value.name) for value in graph.input if value.name in casts_in]
    ordered = list(first)
    for node in nodes:
        ordered.append(node)
        for name in node.output:
            if name in casts_in:
                ordered.append(casts_in.pop(name))
            if name.removesuffix(HALF) in casts_out:
                ordered.append(casts_out.pop(name.removesuffix(HALF)))
    assert not casts_in and not casts_out
    del graph.node[:]
    graph.node.extend(ordered)
