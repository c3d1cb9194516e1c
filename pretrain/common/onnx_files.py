"""Models as ONNX files, through :func:`torch.export.export` and PyTorch's current ONNX exporter."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from pretrain.common.errors import UserError
from pretrain.common.files import replacing

__all__ = ["OnnxForm", "check_onnx_packages", "onnx_program", "onnx_session", "write_onnx"]

logger = logging.getLogger(__name__)

ONNX_LIMIT = 2**31
"""Bytes that fit into one ONNX file."""


@dataclass(frozen=True)
class OnnxForm:
    """A model as it is exported.

    Attributes:
        module: from one batch of images to a tuple of outputs, in evaluation mode.
        example: a batch of images to trace it with.
        dynamic: sizes of `images` that are left free, such as `{0: "batch", 2: "height", 3: "width"}`.
        outputs: name of each output, with its sizes: numbers, and names for those that are free.
        metadata: texts that the file carries.
        translations: how operators of its own are written, as :func:`torch.onnx.export` takes them.
    """

    module: nn.Module
    example: torch.Tensor
    dynamic: Mapping[int, str]
    outputs: Mapping[str, Sequence[int | str]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    translations: Mapping = field(default_factory=dict)


def check_onnx_packages() -> None:
    """Raises UserError unless what writes and reads ONNX files is installed."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as e:
        raise UserError(f"ONNX export needs more packages ({e}): pip install -e '.[export]'") from e


def write_onnx(form: OnnxForm, path: Path) -> None:
    """Writes a model as one ONNX file, weights included, whole or not at all.

    Raises:
        UserError: packages are missing, or the model is larger than one file can hold.
        OSError: the file cannot be written.
    """
    check_onnx_packages()
    logger.info(f"Exporting {path.name} …")
    with torch.no_grad():
        shapes = dict.fromkeys(form.dynamic, Dim.AUTO)
        program = torch.export.export(form.module, (form.example,), dynamic_shapes=(shapes,), strict=False)
        onnx = onnx_program(program, form.module, list(form.outputs), form.translations)
    images = {0: "batch", **form.dynamic}
    _name_sizes(onnx.model.graph.inputs[0], [images.get(i, side) for i, side in enumerate(form.example.shape)])
    for value, sizes in zip(onnx.model.graph.outputs, form.outputs.values(), strict=True):
        _name_sizes(value, sizes)
    onnx.model.metadata_props.update(form.metadata)
    with replacing(path) as temporary:
        onnx.save(temporary, external_data=False)


def onnx_program(program: ExportedProgram, model: nn.Module, names: Sequence[str], translations: Mapping = {}) -> Any:
    """The ONNX program of an exported one, with one input `images`.

    Raises:
        UserError: the model is larger than one file can hold.
    """
    if sum(t.numel() * t.element_size() for t in model.state_dict().values()) >= ONNX_LIMIT:
        raise UserError("The model is larger than the 2 GiB that one ONNX file can hold; its pyramid fits a .pt2 file.")
    onnx = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=list(names),
        external_data=False,
        custom_translation_table=dict(translations) or None,
    )
    assert onnx is not None, "the exporter gives a program under dynamo=True"
    return onnx


def onnx_session(path: Path) -> Any:
    """An ONNX Runtime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _name_sizes(value: Any, sizes: Sequence[int | str]) -> None:
    """Gives an input or output of a graph the names of its free sizes, in place of those that the exporter counts."""
    import onnx_ir

    value.shape = onnx_ir.Shape(list(sizes))
