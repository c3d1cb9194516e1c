"""ONNX files in less than float32, by ONNX Runtime's own tools.

  `fp16`  weights and layers in float16; what needs more stays in float32, see :mod:`lazyrun.export.half`
  `int8`  layers of :func:`quantizable_nodes` with int8 weights, one scale for each output channel. With calibration
          images every activation gets one range, the widest that was seen; convolutions and matrix products are then
          quantised. Without images the ranges are found at run time, for matrix products alone: ONNX Runtime has no
          fast convolution of that kind.

Images, boxes, scores and masks are the same types as those of a float32 file.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lazyrun.export.calibration import check_calibration, network_input
from lazyrun.export.half import to_float16
from lazyrun.export.layers import QUANTIZED, quantizable_nodes
from lazyrun.onnx_runner.metadata import Metadata
from pretrain.common.errors import UserError
from pretrain.common.onnx_files import OnnxForm, check_onnx_packages, write_onnx
from pretrain.common.temporary import replacing

__all__ = ["PRECISIONS", "write_precise"]

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
"""Names of precisions, and what the metadata call them."""


def _check_precision(precision: str, calibration: Sequence[Path] | None) -> None:
    """Raises UserError for an unknown precision, and for calibration images that it has no use for."""
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision!r} is not known; there are {', '.join(PRECISIONS)}.")
    if calibration is not None and precision != "int8":
        raise UserError("Calibration images are for int8 alone; ask for int8, or give none.")


def write_precise(
    form: OnnxForm, path: Path, precision: str = "fp32", calibration: Sequence[Path] | None = None
) -> Metadata:
    """Writes a model as one ONNX file of this precision, whole or not at all.

    Args:
        form: as :func:`write_onnx` takes it, with :class:`Metadata`.
        path: file to write, replaced if it exists.
        precision: one of :data:`PRECISIONS`.
        calibration: for int8, images like those that the model will see.

    Returns:
        what the file says of itself.

    Raises:
        UserError: packages are missing, calibration images cannot be used, or the model does not fit into one file.
        OSError: the file cannot be written.
    """
    _check_precision(precision, calibration)
    metadata = Metadata.from_strings(form.metadata, str(path))
    if precision == "fp32":
        write_onnx(form, path)
        return metadata
    check_onnx_packages()
    images = None if calibration is None else check_calibration(calibration, metadata)
    metadata = replace(metadata, precision=PRECISIONS[precision], calibration_images=len(images or ()))
    with replacing(path) as temporary, tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "float32.onnx"
        write_onnx(form, full)
        logger.info(f"Converting {path.name} to {metadata.precision} …")
        with _quiet():
            model = _half(full) if precision == "fp16" else _quantised(full, Path(folder), metadata, images)
        _save(model, metadata, temporary)
    return metadata


def _half(full: Path) -> Any:
    import onnx

    model = onnx.load(full)
    _fold_constants(model)
    to_float16(model)
    return model


def _quantised(full: Path, folder: Path, metadata: Metadata, images: Sequence[Path] | None) -> Any:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import QuantType

    model = onnx.load(full)
    _fold_constants(model)
    layers = quantizable_nodes(model.graph)
    if images is None:
        products = {node.name for node in model.graph.node if node.op_type != "Conv"}
        layers = [name for name in layers if name in products]
    if not layers:
        raise UserError("The model has no layer that can be quantised in this way.")
    options: dict[str, Any] = {
        "nodes_to_quantize": layers,
        "op_types_to_quantize": list(QUANTIZED),  # else calibration watches every tensor of the graph
        "per_channel": True,
        "weight_type": QuantType.QInt8,
    }
    output = folder / "int8.onnx"
    if images is None:
        quantization.quantize_dynamic(model, output, **options)
    else:
        quantization.quantize_static(
            model,
            output,
            _Reader(network_input(image, metadata) for image in images),
            activation_type=QuantType.QUInt8,  # with int8 weights this is what x86 multiplies
            **options,
        )
    return onnx.load(output)


class _Reader:
    """Feeds calibration images, as ONNX Runtime's CalibrationDataReader does."""

    def __init__(self, inputs: Iterator[Any]):
        self.inputs = inputs

    def get_next(self) -> dict[str, Any] | None:
        images = next(self.inputs, None)
        return None if images is None else {"images": images}


FOLDED = ("Reshape", "Transpose", "Add", "Sub", "Mul")


def _fold_constants(model: Any) -> None:
    """Computes what is the same for all images once and for all, in float32 and in place.

    Only weights that are constants are converted. Anchors are sums of constants, which float16 would move.
    """
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    fold_constants(
        model,
        should_fold=lambda node: True if node.op_type in FOLDED else None,  # of any size
        output_size_limit=2**31,
    )
    remove_unused_nodes(model)
    del model.graph.value_info[:]  # shapes are inferred anew; the exporter's differ in batch and size


def _save(model: Any, metadata: Metadata, path: Path) -> None:
    import onnx

    texts = {p.key: p.value for p in model.metadata_props} | metadata.to_strings()
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tools log to the root logger what does not concern the user."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
