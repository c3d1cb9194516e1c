"""Runs exported models with NumPy, ONNX Runtime and Pillow alone: `python -m lazyrun.onnx_runner`."""

from lazyrun.onnx_runner.detections import Detections
from lazyrun.onnx_runner.metadata import Metadata, OnnxFileError
from lazyrun.onnx_runner.model import OnnxModel

__all__ = ["Detections", "Metadata", "OnnxFileError", "OnnxModel"]
