"""Which nodes of an exported graph are a network's layers, and which of these can be computed with fewer bits.

The exporter notes for each node the modules that it comes from. What an exported form does itself belongs to none: the
normalisation of images, decoding of boxes, suppression, softmax of scores, resizing of logits.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["QUANTIZED", "module_of", "nodes_in_float16", "quantizable_nodes"]

SCOPES = "pkg.torch.onnx.name_scopes"
WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZED = ("Conv", "Gemm", "MatMul")
"""Those that ONNX Runtime has int8 kernels for on CPUs."""

SAFE = (
    *("Add", "Sub", "Mul", "Relu", "Gelu", "Einsum", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Reshape", "Flatten", "Transpose", "Slice", "Split", "Concat", "Squeeze", "Unsqueeze", "Expand", "Pad", "Gather"),
)
"""Those that lose no more in float16 than its rounding. Exponentials overflow or vanish, and coordinates need more than
its 11 bits: softmax, sigmoid, suppression, pooling of boxes and all that is not named here stay in float32."""

STATISTICS = ("ReduceMean", "Pow", "Sqrt", "LayerNormalization", "InstanceNormalization")
"""Mark modules that normalise: squares of 256 and more overflow in float16, and epsilon vanishes."""


def module_of(node: Any) -> str:
    """Dotted name of the module that a node was exported from; "" for what the form does itself."""
    text = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
    try:
        scopes = ast.literal_eval(text)[:-1]  # the last one is the operator's own name
    except (ValueError, SyntaxError):
        return ""
    name = scopes[-1] if scopes else ""
    return "" if name.startswith("_") else name


def nodes_in_float16(graph: Any) -> list[str]:
    """Names of the nodes that a float16 file computes in float16; everything else needs float32."""
    normalising = {module_of(node) for node in graph.node if node.op_type in STATISTICS}
    return [
        node.name
        for node in graph.node
        if node.op_type in (*WITH_WEIGHTS, *SAFE)
        and module_of(node)
        and (module_of(node) not in normalising or node.op_type in WITH_WEIGHTS)
    ]


def quantizable_nodes(graph: Any) -> list[str]:
    """Names of the layers that an int8 file quantises: those with weights, but for the first and the last ones.

    The first ones see the pixels. The last ones give scores, box deltas and masks, whose last digits count.
    """
    import onnx

    readers: defaultdict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    for value in graph.output:  # whoever reads these belongs to no module either
        readers[value.name].append(onnx.helper.make_node("Identity", [value.name], []))
    made_by = {name: [node] for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in QUANTIZED
        and module_of(node)
        and node.input[1] in constants
        # What a node computes with comes first among its inputs, shapes and indices after it.
        and not _meets_form(made_by.get(node.input[0], ()), lambda other: made_by.get(other.input[0], ()))
        and not _meets_form(readers[node.output[0]], lambda other: [n for out in other.output for n in readers[out]])
    ]


def _meets_form(nodes: Iterable[Any], neighbours: Callable[[Any], Iterable[Any]]) -> bool:
    """Whether a step of the form itself is met, from these nodes on, before any layer with weights or pooling is."""
    waiting, seen = list(nodes), set()
    while waiting:
        node = waiting.pop()
        if node.name in seen or node.op_type in (*WITH_WEIGHTS, "RoiAlign", "Shape"):
            continue
        seen.add(node.name)
        if not module_of(node):
            return True
        waiting += neighbours(node)
    return False
