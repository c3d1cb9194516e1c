"""Writing a whole model as one ONNX file, and comparing it with the model it was made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lazyrun.config.task import task_of
from lazyrun.export.smaller import write_precise
from lazyrun.onnx_runner.metadata import Metadata, OnnxFileError
from lazyrun.onnx_runner.model import OnnxModel
from pretrain.common.errors import UserError
from pretrain.common.onnx_files import check_onnx_packages

__all__ = ["compare_with", "export_whole"]


def export_whole(
    predictor: Any,
    path: Path,
    *,
    square: int | None = None,
    settings: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    calibration: Sequence[Path] | None = None,
) -> Metadata:
    """Writes a predictor's model as an ONNX file that :class:`lazyrun.onnx_runner.OnnxModel` runs.

    Args:
        predictor: of any task, on the CPU.
        path: file to write, replaced if it exists.
        square: side in pixels of the square that images are padded to, for models that have none of their own.
        settings: of parts of the model that can run in several ways, such as `{"sample_ratio": 0.5}`.
        precision: one of :data:`lazyrun.export.smaller.PRECISIONS`.
        calibration: for int8, images like those that the model will see; without any, ranges are found at run time.

    Returns:
        what the file says of itself.

    Raises:
        UserError: the model cannot be exported, or ONNX Runtime cannot read the file.
    """
    if predictor.device != "cpu":
        raise UserError(
            f"Models are exported on the CPU, this one is on {predictor.device}; load it with device='cpu'."
        )
    form = task_of(predictor.cfg).onnx_form(predictor, square=square, settings=settings)
    metadata = write_precise(form, path, precision, calibration)
    try:
        OnnxModel(path)
    except OnnxFileError as e:
        raise UserError(f"The file was written but cannot be used: {e}") from e
    return metadata


def compare_with(predictor: Any, path: Path, images: Sequence[np.ndarray | Path], **options: Any) -> Any:
    """Compares an exported file with the model it was made from, which is put in the same state first.

    Args:
        predictor: the eager model, on the CPU.
        path: the exported file.
        images: files, or RGB uint8 `(H, W, 3)`.
        options: of the task's comparison, such as `accuracy` of :func:`lazyrun.export.compare.compare_detectors`.

    Returns:
        what the task's comparison gives: printable, with a property `holds`.

    Raises:
        UserError: the file cannot be used.
    """
    check_onnx_packages()
    try:
        exported = OnnxModel(path, providers=["CPUExecutionProvider"], threads=torch.get_num_threads())
        task = task_of(predictor.cfg)
        if exported.metadata.task != task.name:
            raise UserError(f"{path} is for {exported.metadata.task}, the config for {task.name}.")
        square = exported.metadata.largest[0]
        task.onnx_form(predictor, square=square, settings=exported.metadata.settings)
        return task.compare(predictor, exported, images, **options)
    except OnnxFileError as e:
        raise UserError(str(e)) from e
